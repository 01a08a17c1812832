# shellcheck shell=bash
# Sourced by tools/test and tools/demo: the project's virtual environment in .venv, made once and kept.
#
#   env_setup test plot    sees to it that .venv holds graphc (editable) with these extras
#   offer_package NAME WHY installs a package of the system, asking first (see below)
#
# GRAPHC_PYTHON chooses the interpreter that .venv is made with. Installing happens again only when
# pyproject.toml has changed, an extra is missing, or the project has moved.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"
PY="$VENV/bin/python"
STATE="$VENV/graphc-setup"      # one stamp an extra, and `made`: this script made the environment
ASSUME_YES=                     # tools/demo --yes sets it

unset PYTHONHOME                # it would lead .venv's Python to another library

say() { printf '%s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

# --- the system's packages ---------------------------------------------------------------------------------

# The command that installs package $1, in the array INSTALL; false where no package manager is known.
# UPDATE is what must run before it, if anything.
find_package_manager() {
    UPDATE=()
    if   command -v apt-get >/dev/null; then UPDATE=(apt-get update -qq); INSTALL=(apt-get install -y --no-install-recommends "$1")
    elif command -v dnf     >/dev/null; then INSTALL=(dnf install -y -q "$1")
    elif command -v pacman  >/dev/null; then INSTALL=(pacman -Sy --noconfirm --needed "$1")
    elif command -v apk     >/dev/null; then INSTALL=(apk add --quiet "$1")
    elif command -v zypper  >/dev/null; then INSTALL=(zypper --non-interactive --quiet install "$1")
    elif command -v brew    >/dev/null; then INSTALL=(brew install --quiet "$1")
    else return 1
    fi
}

# offer_package NAME WHY: at a terminal, ask; as root without one, install and say so; else say how.
# True when the package was installed.
offer_package() {
    local name=$1 why=$2 how answer log prefix=(env)
    if ! find_package_manager "$name"; then
        say "$why No package manager that I know is here: please install '$name' by hand."
        return 1
    fi
    how="${INSTALL[*]}"
    if [ "${INSTALL[0]}" != brew ] && [ "$(id -u)" != 0 ]; then
        how="sudo $how"
        prefix=(sudo env)
        if ! [ -t 0 ]; then prefix=(sudo -n env); fi    # nobody to type a password
    fi
    if [ -n "$ASSUME_YES" ]; then
        :
    elif [ -t 0 ] && [ -t 1 ]; then
        say "$why It can be installed with:  $how"
        read -r -p "Install it now? [Y/n] " answer || answer=n
        case "$answer" in ""|[yY]*) ;; *) return 1 ;; esac
    elif [ "$(id -u)" != 0 ]; then
        say "$why Install it with:  $how"
        return 1
    fi
    if ! command -v "${prefix[0]}" >/dev/null; then
        say "$why Installing it needs an administrator:  ${INSTALL[*]}"
        return 1
    fi
    say "$why Installing it:  $how"
    log="$(mktemp)"
    prefix+=(DEBIAN_FRONTEND=noninteractive)
    # A list that could not be brought up to date may still do, so only the installation decides.
    if [ ${#UPDATE[@]} -gt 0 ]; then "${prefix[@]}" "${UPDATE[@]}" >"$log" 2>&1 </dev/null || true; fi
    if "${prefix[@]}" "${INSTALL[@]}" >>"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return 0
    fi
    say "That failed; it said:"
    tail -n 8 "$log" | sed 's/^/    /'
    rm -f "$log"
    return 1
}

# --- the virtual environment -------------------------------------------------------------------------------

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "no working Python"; }
base_of() {
    "$1" -c 'import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))' 2>/dev/null || true
}

# Prints the interpreter to make .venv with.
choose_python() {
    local name
    if [ -n "${GRAPHC_PYTHON:-}" ]; then
        command -v "$GRAPHC_PYTHON" >/dev/null || fail "GRAPHC_PYTHON is '$GRAPHC_PYTHON', and there is no such program."
        is_new_enough "$GRAPHC_PYTHON" \
            || fail "graphc needs Python 3.11 or later; GRAPHC_PYTHON=$GRAPHC_PYTHON is $(version_of "$GRAPHC_PYTHON")."
        printf '%s\n' "$GRAPHC_PYTHON"
        return
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if command -v "$name" >/dev/null && is_new_enough "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    if command -v python3 >/dev/null; then
        fail "graphc needs Python 3.11 or later; python3 here is $(version_of python3)." \
             "Install a newer one, or name it:  GRAPHC_PYTHON=/path/to/python3.12 $0"
    fi
    fail "graphc needs Python 3.11 or later, and no python3 was found. Install it, or name it:" \
         " GRAPHC_PYTHON=/path/to/python3.12 $0"
}

# Why the environment in .venv cannot be used as it is; nothing when it can.
venv_trouble() {
    if [ ! -x "$PY" ]; then echo "it has no working Python"
    elif ! is_new_enough "$PY"; then echo "its Python is not 3.11 or later"
    elif ! "$PY" -c 'import pip' 2>/dev/null; then echo "it has no pip"
    elif [ -f "$STATE/made" ] && [ "$(<"$STATE/made")" != "$ROOT" ]; then echo "the project was moved or copied"
    elif [ -n "${GRAPHC_PYTHON:-}" ] && [ "$(base_of "$PY")" != "$(base_of "$GRAPHC_PYTHON")" ]; then
        echo "GRAPHC_PYTHON names another Python"
    fi
}

make_venv() {
    local python=$1 short
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        # Debian and Ubuntu keep them in a package of their own.
        short="$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"
        if command -v apt-get >/dev/null; then
            offer_package "$short-venv" "$python lacks the modules that make virtual environments." || true
        fi
        "$python" -c 'import venv, ensurepip' 2>/dev/null \
            || fail "$python cannot make a virtual environment: its modules venv and ensurepip are missing." \
                    "On Debian and Ubuntu:  apt-get install $short-venv"
    fi
    say "Making a virtual environment in .venv with Python $(version_of "$python")."
    mkdir -p "$STATE"
    printf '%s\n' "$ROOT" >"$STATE/made"
    "$python" -m venv "$VENV" || fail "Making the virtual environment failed (see above)."
}

# What an extra's stamp must hold: where the project is, and its pyproject.toml.
stamp_text() { printf '%s\n' "$ROOT"; cat "$ROOT/pyproject.toml"; }

# pip, telling at a terminal what it is at in one line that is written over.
pip_install() {
    local log="$STATE/pip.log" status=0
    if [ -t 1 ]; then
        "$PY" -m pip install --disable-pip-version-check "$@" 2>&1 | tee "$log" | while IFS= read -r line; do
            case "$line" in
                Collecting*|*Downloading*|*Preparing*|Building*|Installing*) printf '\r\033[K  %.76s' "$line" ;;
            esac
        done || status=$?       # pip's, by pipefail
        printf '\r\033[K'
    else
        "$PY" -m pip install --disable-pip-version-check "$@" >"$log" 2>&1 || status=$?
    fi
    if [ "$status" != 0 ]; then
        tail -n 15 "$log" | sed 's/^/    /' >&2
        fail "Installing failed: pip's last lines are above, all of them in .venv/${log#"$VENV/"}."
    fi
}

env_setup() {
    local trouble=none python extra missing=() list
    if [ -e "$VENV" ]; then
        trouble="$(venv_trouble)"
        if [ -n "$trouble" ] && [ ! -f "$STATE/made" ]; then
            fail "There is a .venv that was not made here, and $trouble. Please mend or remove it."
        fi
    fi
    if [ -n "$trouble" ]; then
        python="$(choose_python)" || exit 1     # before anything is removed
        if [ -e "$VENV" ]; then
            say "Making .venv anew: $trouble."
            rm -rf "$VENV"
        fi
        make_venv "$python"
    fi
    mkdir -p "$STATE"
    for extra in "$@"; do
        if [ ! -f "$STATE/$extra" ] || [ "$(<"$STATE/$extra")" != "$(stamp_text)" ]; then missing+=("$extra"); fi
    done
    if [ ${#missing[@]} -gt 0 ]; then
        list="$(IFS=,; echo "$*")"
        say "Installing graphc and what it needs into .venv (extras: ${list//,/, }); the first time takes a minute or two."
        (cd "$ROOT" && pip_install --editable ".[$list]") || exit 1
        for extra in "$@"; do stamp_text >"$STATE/$extra"; done
        say "Installed. To work in it yourself:  . .venv/bin/activate"
    fi
}
