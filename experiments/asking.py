"""`launch.py sample`: text, or the next-token table. JAX comes late, once it is configured."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class SampleFlags:
    """What to ask a trained model."""

    run: Positional[str] = "largest"
    """run_id (or its beginning) of a finished run; `largest` takes the one of most compute."""
    out: Path = Path("out")
    """Folder of corpora, runs and sweeps."""
    pretrained: Path | None = None
    """Ask a GPT-2 of Hugging Face's layout instead: folder with config.json, model.safetensors and
    the tokenizer's files."""
    prompt: tuple[str, ...] = ()
    """Texts to continue; several are continued side by side. Default: "The ", or for a generated
    language what it begins with."""
    tokens: int = 256
    """How many tokens to generate. Once a text is longer than the model's context, the model sees
    the last of it, and every further token takes as long as a pass over a whole context."""
    temperature: float = 0.8
    """0 always takes the most likely token."""
    top_k: int | None = None
    """Draw from the k most likely tokens only."""
    top_p: float | None = None
    """Draw from as many of the most likely tokens as have this probability together."""
    stop: str | None = None
    """End at this token, given by its text; <|endoftext|> is the end of a document."""
    seed: int = 0
    """Seed of the draw."""
    next: int | None = None
    """Print the NEXT most likely next tokens with their probabilities instead of generating."""


def sample(flags: SampleFlags) -> int:
    """Text, or the next-token table, from a trained run or from a GPT-2."""
    from train.runtime import configure

    configure(flags.out / "cache")
    from experiments.sampling import continued, load_pretrained, load_run, next_tokens, prompt_of
    from experiments.workspace import Workspace
    from model.drawing import Draws

    if flags.pretrained is not None:
        run = load_pretrained(flags.pretrained)
    else:
        run = load_run(Workspace(flags.out), flags.run)
    prompts = [prompt_of(run, given, "The ") for given in flags.prompt or (None,)]
    if flags.next is not None:
        for prompt in prompts:
            for text, probability in next_tokens(run, prompt, flags.next):
                print(f"{probability:8.4f}  {text!r}")
        return 0
    draws = Draws(flags.temperature, flags.top_k, flags.top_p, flags.seed)
    pieces = continued(run, prompts, n_tokens=flags.tokens, draws=draws, stop=flags.stop)
    if len(prompts) == 1:
        sys.stdout.write(prompts[0])
        for (piece,) in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        print()
        return 0
    for prompt, told in zip(prompts, zip(*pieces, strict=True), strict=True):
        print(prompt + "".join(told), end="\n\n")
    return 0
