#!/usr/bin/env bash
# Run a command with a real SLURM of one node on this machine, which lasts as long as the command.
# Installs Debian's packages if they are not there, which needs root; configuration, keys, state and
# logs lie in a temporary folder, and all that was started is stopped, also on failure.
# Usage: tests/slurm/run.sh COMMAND [ARGUMENT...]
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
    echo "tests/slurm/run.sh: munge and slurmd want root; run it in a container or as root" >&2
    exit 2
fi
if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Nothing may start with a configuration that is not ours.
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1; }
    apt-get install -qq -y slurm-wlm munge >/dev/null
    [ -z "${made:-}" ] || rm "$policy"
fi

home=$(mktemp -d /var/tmp/slurm.XXXXXX)
chmod 755 "$home"
mkdir "$home/state" "$home/spool"
export SLURM_CONF=$home/slurm.conf SLURM_OF_TESTS=1

stop() {
    set +e
    scancel --user=root 2>/dev/null
    for _ in $(seq 40); do
        [ -z "$(squeue --noheader 2>/dev/null)" ] && break
        sleep 0.5
    done
    for daemon in slurmd slurmctld munged; do
        [ -s "$home/$daemon.pid" ] || continue
        pid=$(cat "$home/$daemon.pid")
        kill "$pid" 2>/dev/null
        for _ in $(seq 40); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.25
        done
        kill -9 "$pid" 2>/dev/null
    done
    rm -rf "$home"
}
trap stop EXIT
trap 'exit 130' INT TERM

read -r -d '' port_ctld port_d < <(shuf -i 20000-30000 -n 2) || true
(umask 077 && dd if=/dev/urandom of="$home/munge.key" bs=1024 count=1 2>/dev/null)
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port_ctld
SlurmdPort=$port_d
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=20
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=test Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF

munged --force --key-file="$home/munge.key" --socket="$home/munge.socket" \
    --pid-file="$home/munged.pid" --log-file="$home/munged.log" --seed-file="$home/munge.seed"
slurmctld
slurmd -N localhost
for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] && break
    sleep 0.5
done
if [ "$(sinfo --noheader --format=%t)" != idle ]; then
    tail -n 20 "$home"/*.log >&2
    exit 1
fi
sinfo

"$@"
