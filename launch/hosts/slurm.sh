#!/usr/bin/env bash
# Submits launch.train to Slurm: whole GPU nodes, one process on each.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/hosts/slurm.sh [options] -- [PRESET] [options of launch.train]

  --run-dir DIR     folder of the run, on storage that all nodes share (needed)
  --nodes N         nodes; default 1
  --gpus N          GPUs of a node; default 8
  --time LIMIT      Slurm's time limit; default 24:00:00
  --grace SECONDS   SIGTERM comes this long before the limit, to save; default 300
  --name NAME       name of the job; default gtpo
  --python PROGRAM  interpreter on the nodes; default .venv/bin/python of this checkout
  --image IMAGE     run in this container, with Pyxis; --python is then that of the image
  --mount DIR       one more folder that the container sees; repeatable
  --sbatch OPTION   one more option of sbatch, such as --sbatch=--partition=h200; repeatable
  --check-with PROGRAM  interpreter here that checks what follows --; default .venv/bin/python of
                    this checkout, or python3
  --no-check        hand what follows -- on unchecked
  --dry-run         print the commands and do nothing
  --help            this text

A run that was told to stop saves and goes back to the queue; it then goes on from what it saved.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=launch/hosts/common.sh
source "$here/common.sh"

run_dir='' nodes=1 gpus=8 time=24:00:00 grace=300 name=gtpo python='' image='' mounts=()
check=yes check_with=''
batch=(--requeue --open-mode=append)
while (($#)); do
    option=$1
    # --option=value is --option value
    if [[ $option == --*=* ]]; then
        shift
        set -- "${option%%=*}" "${option#*=}" "$@"
        option=$1
    fi
    case $option in
        --help | -h) usage && exit ;;
        --dry-run) dry_run=yes && shift && continue ;;
        --no-check) check=no && shift && continue ;;
        --) shift && break ;;
        --*) ;;
        *) die "$option is no option; preset and options of launch.train come after --" ;;
    esac
    value=$(value_of "$option" $# "${2-}") || exit
    case $option in
        --run-dir) run_dir=$value ;;
        --nodes) nodes=$value ;;
        --gpus) gpus=$value ;;
        --time) time=$value ;;
        --grace) grace=$value ;;
        --name) name=$value ;;
        --python) python=$value ;;
        --image) image=$value ;;
        --mount) mounts+=("$value") ;;
        --sbatch) batch+=("$value") ;;
        --check-with) check_with=$value ;;
        *) die "unknown option $option; those of launch.train come after --" ;;
    esac
    shift 2
done
check_run_dir "$run_dir"
check_number --nodes "$nodes"
check_number --gpus "$gpus"
check_number --grace "$grace"
mounts=("$run_dir" ${mounts[@]+"${mounts[@]}"})
check_paths --mount "${mounts[@]}"
[[ -n $image || ${#mounts[@]} == 1 ]] || die '--mount says nothing without --image'
check_program sbatch

if [[ -z $python ]]; then
    if [[ -n $image ]]; then python=python; else python=$root/.venv/bin/python; fi
fi
train_command "$python" "$run_dir" "$@"
if [[ $check == yes ]]; then check_train "$check_with"; fi

# Left to itself, JAX under Slurm takes one GPU for each process; here a process has all of its node.
devices=0
for ((device = 1; device < gpus; device++)); do devices+=,$device; done

# No task may end the others: they leave together once all have saved, or when a heartbeat is missing.
step=(--kill-on-bad-exit=0 --cpu-bind=none)
if [[ -n $image ]]; then
    pairs=("${mounts[@]/%/:}")
    for index in "${!mounts[@]}"; do pairs[index]+=${mounts[index]}; done
    step+=("--container-image=$image" "--container-mounts=$(IFS=, && printf '%s' "${pairs[*]}")")
    step+=(--container-workdir=/opt/gtpo_jax)
fi
step+=(env "JAX_LOCAL_DEVICE_IDS=$devices" "${train[@]}")

run mkdir -p "$run_dir"
run sbatch "--job-name=$name" "--nodes=$nodes" --ntasks-per-node=1 "--gpus-per-node=$gpus" \
    --exclusive --mem=0 "--time=$time" "--signal=TERM@$grace" "--output=$run_dir/slurm-%j.log" \
    "--chdir=$root" "${batch[@]}" "$here/slurm.sbatch" "${step[@]}"
if [[ $dry_run == yes ]]; then
    printf '# which on the first node, once there are %s, runs\n' "$nodes"
    quote srun "${step[@]}"
    printf '# and, when that ends with %s and the job was not canceled,\n' "$PREEMPTED"
    printf '%s\n' "scontrol requeue \"\$SLURM_JOB_ID\""
fi
