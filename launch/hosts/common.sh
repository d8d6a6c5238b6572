# Sourced by tpu_pod.sh and slurm.sh: words for the shell, commands shown or run, the training command
# and the check of its options.
# shellcheck shell=bash

# shellcheck disable=SC2034 # the scripts read it
PREEMPTED=75 # exit status of launch.train: stopped from outside, saved; run again to go on
dry_run=no   # yes: commands are shown and not run

die() { # message
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 2
}

quote() { # words → one line that a shell reads as the same words
    local word line=''
    for word in "$@"; do
        if [[ ! $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then word=$(in_quotes "$word"); fi
        line+="${line:+ }$word"
    done
    printf '%s\n' "$line"
}

in_quotes() { # word
    local rest=$1 done=''
    while [[ $rest == *\'* ]]; do
        done+="${rest%%\'*}'\\''"
        rest=${rest#*\'}
    done
    printf "'%s'" "$done$rest"
}

run() { # words: shows the command; runs it unless this is a dry run
    if [[ $dry_run == yes ]]; then
        quote "$@"
    else
        quote "$@" >&2
        "$@"
    fi
}

value_of() { # option, words left, value
    if (($2 < 2)) || [[ -z $3 ]]; then die "$1 needs a value"; fi
    printf '%s\n' "$3"
}

check_number() { # option, value
    [[ $2 =~ ^[1-9][0-9]*$ ]] || die "$1 takes a whole number above 0, not '$2'"
}

check_paths() { # option, folders
    local option=$1 folder
    shift
    for folder in "$@"; do
        [[ $folder == /* ]] || die "$option takes an absolute path, the same on every host, not '$folder'"
        [[ $folder != *[:,]* ]] || die "$option takes no path with : or , in it, not '$folder'"
    done
}

check_run_dir() { # value
    [[ -n $1 ]] || die '--run-dir is needed: a folder that every host sees and that outlives them'
    check_paths --run-dir "$1"
}

check_program() { # name
    [[ $dry_run == yes ]] || command -v "$1" >/dev/null || die "$1 is not there; --dry-run needs none"
}

# Sets `train`: launch.train with the user's preset and options, and those that belong to the host.
train_command() { # python, run folder, preset and options
    local python=$1 run_dir=$2 word resume=--resume-if-any
    shift 2
    for word in "$@"; do
        case $word in
            --run-dir | --run-dir=*) die 'give --run-dir before the --, to the script' ;;
            --resume | --resume-if-any) resume='' ;;
        esac
    done
    train=("$python" -m launch.train "$@" --run-dir "$run_dir" --cluster auto)
    if [[ -n $resume ]]; then train+=("$resume"); fi
}

# The options of `train` go through the parser of launch.train here, before any host is asked for.
check_train() { # interpreter of this machine, or nothing for the checkout's
    local python=$1 told status=0
    if [[ -z $python ]]; then
        # shellcheck disable=SC2154 # the scripts set it
        python=$root/.venv/bin/python
        if [[ ! -x $python ]]; then python=python3; fi
    fi
    told=$(cd "$root" && JAX_PLATFORMS=cpu "$python" -m launch.hosts.check "${train[@]:3}" 2>&1 >/dev/null) ||
        status=$?
    told=${told##*$'\n'}
    case $status in
        0) ;;
        2) die "${told#error: }" ;;
        *) die "$python cannot check the options of launch.train here ($told); name one that can by --check-with, or give --no-check" ;;
    esac
}
