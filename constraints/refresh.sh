#!/usr/bin/env bash
# Resolves the newest releases that pyproject.toml admits (runtime, test and lint) and writes their exact
# versions: py311.txt from Python 3.11, py312.txt from Python 3.12, which also serves the later ones.
#
#     constraints/refresh.sh [PYTHON3.11 [PYTHON3.12]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

refresh() {  # python, minor version, file
    local python=$1 minor=$2 file=$3
    if ! "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$minor')"; then
        echo "refresh.sh: $file needs Python $minor and '$python' is none; name one as an argument" >&2
        return 1
    fi
    "$python" -m venv "$scratch/$minor"
    "$scratch/$minor/bin/python" -m pip install -qq -e ".[test,lint]"
    {
        echo "# Exact versions for Python $4: runtime, test, lint. Regenerate with \`make constraints\`."
        "$scratch/$minor/bin/python" -m pip freeze --all --exclude-editable --exclude pip
    } >"$scratch/$file"
    if grep -nE ' @ |://' "$scratch/$file" >&2; then
        echo "refresh.sh: $file would hold a place, not a version" >&2
        return 1
    fi
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
refresh "${1:-python3.11}" 3.11 py311.txt 3.11
refresh "${2:-python3.12}" 3.12 py312.txt "3.12 and newer"
cp "$scratch/py311.txt" "$scratch/py312.txt" constraints/
