import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.load import drop_flagged, load_sweep, points_from_csv, points_from_runs, select


def write(folder, text):
    path = folder / "points.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_three_spellings_of_the_same_points(tmp_path):
    papers = points_from_csv(write(tmp_path, "N,D,L\n1e4,2e6,2.5\n2e4,1e6,2.6\n"))
    compute = points_from_csv(write(tmp_path, "L,C,N\n2.5,1.2e11,1e4\n2.6,1.2e11,2e4\n"))
    ours = points_from_csv(
        write(tmp_path, "n_params, n_tokens, loss_nats, note\n1e4,2e6,2.5,a\n2e4,1e6,2.6,b\n")
    )
    for points in (papers, compute, ours):
        np.testing.assert_allclose(points.n_tokens, [2e6, 1e6])
        np.testing.assert_allclose(points.train_flops, 1.2e11)
    assert papers.c_convention == "6nd" and compute.c_convention == "as_given"
    assert papers.table_hash == ours.table_hash


def test_bad_rows_are_listed_with_number_and_reason(tmp_path):
    text = "N,D,L\n1e4,2e6,2.5\n,2e6,2.5\n1e4,-1,2.5\n1e4,2e6,nan\n1e4,2e6,zwölf\n1e4,inf,2\n1e4\n"
    points = points_from_csv(write(tmp_path, text))
    assert len(points) == 1
    labels, reasons = zip(*points.rejected, strict=True)
    assert labels == tuple(f"row {i}" for i in range(2, 8))
    assert "N=''" in reasons[0] and "D='-1'" in reasons[1] and "L='zwölf'" in reasons[3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns present: none"),
        ("N,L\n1,2\n", "lacks n_tokens or train_flops; columns present: N, L"),
        ("a,b\n1,2\n", "lacks n_params, loss_nats, n_tokens or train_flops"),
    ],
)
def test_missing_columns_are_one_error(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        points_from_csv(write(tmp_path, text))


def test_unreadable_files_are_one_error(tmp_path):
    with pytest.raises(ValueError, match="cannot read"):
        points_from_csv(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00N,D,L")
    with pytest.raises(ValueError, match="cannot read"):
        points_from_csv(tmp_path / "binary.csv")


@given(cells=st.lists(st.tuples(*3 * [st.text("0123456789.-e naif", max_size=6)]), max_size=6))
def test_any_cells_are_kept_or_rejected(cells, tmp_path_factory):
    body = "\n".join(",".join(row) for row in cells)
    path = write(tmp_path_factory.mktemp("csv"), f"N,D,L\n{body}\n")
    points = points_from_csv(path)
    table = np.stack([points.n_params, points.n_tokens, points.loss_nats])
    assert (np.isfinite(table) & (table > 0)).all()
    assert len(points) + len(points.rejected) <= len(cells)


def test_labels_and_clusters_of_a_csv(tmp_path):
    text = "N,D,L,run_id,cluster\n1,2,3,first,x\n1,2,4,second,x\n1,2,5,third,y\n"
    points = points_from_csv(write(tmp_path, text))
    assert points.run_id == ("row 1 (first)", "row 2 (second)", "row 3 (third)")
    assert points.cluster[0] == points.cluster[1] != points.cluster[2]


def test_conventions_choose_the_columns():
    runs = planted.runs()
    kept = runs[runs.role == "grid"]
    for n_convention in ("total", "non_embedding"):
        for c_convention in ("matmul_full", "matmul_causal", "6n_total", "6n_non_embedding"):
            points = points_from_runs(runs, n_convention, c_convention)
            np.testing.assert_array_equal(points.n_params, kept[f"n_params_{n_convention}"])
            np.testing.assert_array_equal(points.train_flops, kept[f"train_flops_{c_convention}"])
    with pytest.raises(ValueError, match="n_convention='all'"):
        points_from_runs(runs, "all")
    with pytest.raises(ValueError, match="c_convention='6n'"):
        points_from_runs(runs, "total", "6n")
    with pytest.raises(ValueError, match="lacks columns \\['n_tokens'\\]"):
        points_from_runs(runs.drop(columns="n_tokens"))


def test_held_out_and_diverged_runs_never_reach_a_fit():
    runs = planted.runs()
    runs["diverged_step"] = np.nan
    runs.loc[0, ["status", "loss_nats", "diverged_step"]] = ["diverged", np.nan, 412]
    runs.loc[1, "loss_nats"] = np.nan
    runs.loc[2, "status"] = "running"
    points = points_from_runs(runs)
    reasons = dict(points.rejected)
    assert len(points) == len(runs) - 4
    assert reasons[runs.run_id[0]] == "diverged: at step 412"
    assert "loss_nats=nan" in reasons[runs.run_id[1]]
    assert reasons[runs.run_id[2]] == "not finished: status 'running'"
    assert reasons[runs.run_id.iloc[-1]].startswith("held out")


def test_flags_come_before_any_fit_and_drop_with_their_reason():
    runs = planted.runs(n_epochs=1.4)
    points = points_from_runs(runs)
    names = {flag.split(":")[0] for flags in points.flags for flag in flags}
    assert names == {"pre_asymptotic", "embedding_dominated", "repeated_data"}
    kept = drop_flagged(points, "pre_asymptotic")
    dropped = kept.rejected[len(points.rejected) :]
    assert len(kept) + len(dropped) == len(points)
    assert all(reason.startswith("pre_asymptotic: ") for _, reason in dropped)
    assert all("steps < 900" in reason for _, reason in dropped)


def test_select_needs_a_reason_a_row():
    points = points_from_runs(planted.runs())
    with pytest.raises(ValueError, match="1 reasons for"):
        select(points, ["why"])


def test_load_sweep(tmp_path):
    with pytest.raises(ValueError, match="runs.parquet does not exist; run the sweep first"):
        load_sweep(tmp_path)
    planted.runs().to_parquet(tmp_path / "runs.parquet")
    planted.runs()[["run_id"]].to_parquet(tmp_path / "curves.parquet")
    assert load_sweep(tmp_path).meta == {}
    (tmp_path / "plan.json").write_text('{"name": "tiny"}')
    sweep = load_sweep(tmp_path)
    assert sweep.meta == {"name": "tiny"}
    assert len(points_from_runs(sweep.runs)) == len(sweep.runs) - 1
