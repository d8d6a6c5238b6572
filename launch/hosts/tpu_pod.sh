#!/usr/bin/env bash
# Runs launch.train on every worker of a Cloud TPU, again after each preemption.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/hosts/tpu_pod.sh [options] -- [PRESET] [options of launch.train]

  --name NAME       name of the TPU (needed)
  --zone ZONE       its zone (needed)
  --run-dir DIR     folder of the run, on storage that all workers share (needed)
  --project ID      its project; by default that of gcloud
  --create TYPE     make it if it is not there, such as v5p-128; after a preemption, make it anew
  --version NAME    software of a TPU that is made, such as v2-alpha-tpuv5
  --spot            what is made may be preempted
  --image IMAGE     run in this container; by default the commit checked out here is installed
  --mount DIR       one more folder that the container sees; repeatable
  --python PROGRAM  interpreter on the workers, 3.11 to 3.13; default python3.12
  --setup COMMAND   run on every worker before anything else, to mount --run-dir for example
  --attempts N      times to run, preemptions included; default 100
  --pause SECONDS   before the state of the TPU is asked for after a failure; default 60
  --check-with PROGRAM  interpreter here that checks what follows --; default .venv/bin/python of
                    this checkout, or python3
  --no-check        hand what follows -- on unchecked
  --dry-run         print the commands and do nothing
  --help            this text

Stay connected: what the workers print comes here. Exit status: that of launch.train.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=launch/hosts/common.sh
source "$here/common.sh"

name='' zone='' run_dir='' project='' create='' version='' spot=no image='' python=''
setup='' attempts=100 pause=60 mounts=() check=yes check_with=''
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
        --spot) spot=yes && shift && continue ;;
        --) shift && break ;;
        --*) ;;
        *) die "$option is no option; preset and options of launch.train come after --" ;;
    esac
    value=$(value_of "$option" $# "${2-}") || exit
    case $option in
        --name) name=$value ;;
        --zone) zone=$value ;;
        --run-dir) run_dir=$value ;;
        --project) project=$value ;;
        --create) create=$value ;;
        --version) version=$value ;;
        --image) image=$value ;;
        --python) python=$value ;;
        --mount) mounts+=("$value") ;;
        --setup) setup=$value ;;
        --attempts) attempts=$value ;;
        --pause) pause=$value ;;
        --check-with) check_with=$value ;;
        *) die "unknown option $option; those of launch.train come after --" ;;
    esac
    shift 2
done
[[ -n $name ]] || die '--name is needed: that of the TPU'
[[ -n $zone ]] || die '--zone is needed: that of the TPU, such as us-east5-a'
check_run_dir "$run_dir"
check_number --attempts "$attempts"
[[ $pause =~ ^[0-9]+$ ]] || die "--pause takes a whole number of seconds, not '$pause'"
[[ -z $create || -n $version ]] || die '--create needs --version, the software of the TPU'
[[ -n $create || -z $version ]] || die '--version says nothing without --create'
[[ -n $create || $spot == no ]] || die '--spot says nothing without --create'
[[ -z $image || -z $python ]] || die '--python says nothing with --image, which has its own'
mounts=("$run_dir" ${mounts[@]+"${mounts[@]}"})
check_paths --mount "${mounts[@]}"
[[ -n $image || ${#mounts[@]} == 1 ]] || die '--mount says nothing without --image'
check_program gcloud

scope=("--zone=$zone")
if [[ -n $project ]]; then scope+=("--project=$project"); fi
everywhere=("${scope[@]}" --worker=all --batch-size=all)

tpu() { # verb and options
    run gcloud compute tpus tpu-vm "$@"
}

on_workers() { # command, as one line for their shells
    tpu ssh "$name" "${everywhere[@]}" --ssh-flag=-oServerAliveInterval=60 "--command=$1"
}

make_tpu() {
    local options=("--accelerator-type=$create" "--version=$version")
    if [[ $spot == yes ]]; then options+=(--spot); fi
    tpu create "$name" "${scope[@]}" "${options[@]}"
}

state_of_tpu() { # READY, PREEMPTED, …; nothing where there is none
    tpu describe "$name" "${scope[@]}" '--format=value(state)' || true
}

# Code and environment on the workers are those of the commit, whatever was there.
install() {
    local commit archive constraints=py312
    commit=$(git -C "$root" rev-parse --short HEAD)
    archive=${TMPDIR:-/tmp}/gtpo_jax-$commit.tar.gz
    if [[ ${python:-python3.12} == *3.11 ]]; then constraints=py311; fi
    if [[ -n $(git -C "$root" status --porcelain) ]]; then
        printf '%s: changes that are not committed stay here\n' "${0##*/}" >&2
    fi
    run git -C "$root" archive --format=tar.gz "--output=$archive" HEAD
    tpu scp "$archive" "$name:gtpo_jax.tar.gz" "${everywhere[@]}"
    on_workers "$(
        printf '%s && ' \
            'rm -rf gtpo_jax-launch' \
            'mkdir gtpo_jax-launch' \
            'tar -xzf gtpo_jax.tar.gz -C gtpo_jax-launch' \
            'cd gtpo_jax-launch' \
            "$(quote "${python:-python3.12}" -m venv --clear .venv)"
        printf '%s' ".venv/bin/python -m pip install -q --constraint constraints/$constraints.txt" \
            " -e '.[tpu,hf]'"
    )"
}

prepare() {
    if [[ -n $setup ]]; then on_workers "$setup"; fi
    if [[ -z $image ]]; then install; fi
}

if [[ -n $image ]]; then
    train_command python "$run_dir" "$@"
    # The name keeps a second run from starting beside one whose connection was lost.
    container=(sudo docker run --rm --name gtpo_jax --privileged --network host --user 0)
    container+=(--stop-timeout 120)
    for folder in "${mounts[@]}"; do container+=(--volume "$folder:$folder"); done
    command=$(quote "${container[@]}" "$image" "${train[@]}")
else
    train_command .venv/bin/python "$run_dir" "$@"
    command="cd gtpo_jax-launch && exec $(quote "${train[@]}")"
fi
if [[ $check == yes ]]; then check_train "$check_with"; fi

if [[ $dry_run == yes ]]; then
    if [[ -n $create ]]; then
        state_of_tpu
        printf '# unless that says READY\n'
        make_tpu
    fi
    prepare
    on_workers "$command"
    printf '# when that ends with another status than 0\n'
    state_of_tpu
    printf '# and, up to %s times in all, after %s, where it says READY, the last command but one\n' \
        "$attempts" "$PREEMPTED"
    if [[ -n $create ]]; then
        printf '# or, where it says something else, everything from the start, after\n'
        tpu delete "$name" "${scope[@]}" --quiet
    fi
    exit
fi

if [[ -n $create && $(state_of_tpu) != READY ]]; then make_tpu; fi
prepare
for ((attempt = 1; ; attempt++)); do
    status=0
    on_workers "$command" || status=$?
    if ((status == 0 || attempt == attempts)); then exit "$status"; fi
    sleep "$pause"
    state=$(state_of_tpu)
    if [[ $state == READY ]]; then
        if ((status == PREEMPTED)); then continue; fi
        if ((status == 255)); then
            printf '%s: the connection was lost; the run may go on there\n' "${0##*/}" >&2
        fi
        exit "$status"
    elif [[ -n $create ]]; then
        if [[ -n $state ]]; then tpu delete "$name" "${scope[@]}" --quiet; fi
        make_tpu
        prepare
    else
        printf '%s: TPU %s is %s; make it anew and run this again to go on, or give --create\n' \
            "${0##*/}" "$name" "${state:-gone}" >&2
        exit "$PREEMPTED"
    fi
done
