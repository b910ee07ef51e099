# shellcheck shell=bash
# Shared by all parts: names, paths, messages.

LOCAL_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${BUNDLERUN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bundlerun}
STATE_ROOT=${BUNDLERUN_LOCAL_STATE:-/var/lib/bundlerun-local}
START_SECONDS=$(date +%s%N)

elapsed() {
  local ms=$((($(date +%s%N) - START_SECONDS) / 1000000))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

say() { printf '[%8s] %s\n' "$(elapsed)" "$*" >&2; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# wait_for SECONDS COMMAND...: tries the command every 0.2 s until it succeeds.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}

# with_lock NAME COMMAND...: runs the command while no other process of this cache
# holds the lock. Children of the command hold it too: when this script is killed,
# the next one waits for what is still being written.
with_lock() {
  local lock=$CACHE/$1.lock fd
  shift
  mkdir -p "$CACHE"
  exec {fd}>"$lock"
  if ! flock --nonblock "$fd"; then
    say "waiting for another process that holds $lock"
    flock "$fd"
  fi
  "$@"
  exec {fd}>&-
}

# need PROGRAM=PACKAGE...: fails with one install line for everything that is missing.
need() {
  local pair programs=() packages=()
  for pair in "$@"; do
    if [[ $pair == /* ]]; then
      [[ -e ${pair%=*} ]] && continue
    else
      command -v "${pair%=*}" >/dev/null && continue
    fi
    programs+=("${pair%=*}")
    packages+=("${pair#*=}")
  done
  ((${#programs[@]} == 0)) && return
  fail "missing: ${programs[*]}
Install with: apt-get install -y $(printf '%s\n' "${packages[@]}" | sort -u | tr '\n' ' ')"
}
