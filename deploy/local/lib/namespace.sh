# shellcheck shell=bash
# The cluster's place on the machine: its cgroups, its interface, its processes. All of
# them carry the cluster's name, so that they are found even when the state folder is
# lost.

# Where each cgroup hierarchy is mounted: many with cgroup v1, one with v2.
cgroup_hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts; }

make_cgroups() {
  local root group index groups=("$CGROUP" "$CGROUP/system")
  for ((index = 1; index <= NODES; index++)); do groups+=("$CGROUP/node-$index" "$CGROUP/node-$index/system"); done
  for root in $(cgroup_hierarchies); do
    for group in "${groups[@]/#/$root/}"; do
      mkdir -p "$group"
      if [[ -f $group/cpuset.cpus && ! -f $group/cgroup.controllers ]]; then
        cat "${group%/*}/cpuset.cpus" >"$group/cpuset.cpus"
        cat "${group%/*}/cpuset.mems" >"$group/cpuset.mems"
      fi
    done
    # Only where v2 is all there is: beside v1 its controllers are not the ones in use.
    if [[ $root == /sys/fs/cgroup ]]; then
      for group in "$root" "$root/$CGROUP" "$root/$CGROUP"/node-*; do
        sed 's/[^ ]\+/+&/g' "$group/cgroup.controllers" >"$group/cgroup.subtree_control"
      done
    fi
  done
}

join_cgroups() {
  local root
  for root in $(cgroup_hierarchies); do
    echo "$BASHPID" >"$root/$CGROUP/system/cgroup.procs"
  done
}

# pids_in CGROUP: all processes in it and below.
pids_in() {
  local root
  for root in $(cgroup_hierarchies); do
    [[ -d $root/$1 ]] || continue
    find "$root/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done | sort -un | grep -vx 0 || true
}

# init_pid: the machine's number of the cluster's process 1; empty when there is none.
init_pid() {
  local pid
  for pid in $(pids_in "$CGROUP/system"); do
    # "NSpid: OUTSIDE INSIDE"; a process of a deeper namespace has one number more.
    if [[ $(grep -s ^NSpid: "/proc/$pid/status") =~ ^NSpid:[[:space:]]+[0-9]+[[:space:]]+1$ ]]; then
      echo "$pid"
      return
    fi
  done
}

# kill_all CGROUP
kill_all() {
  local pids root i
  for root in $(cgroup_hierarchies); do
    # A frozen process dies only after it is thawed.
    find "$root/$1" -name freezer.state -exec sh -c 'for f; do echo THAWED >"$f"; done' sh {} + 2>/dev/null || true
  done
  for ((i = 0; i < 100; i++)); do
    pids=$(pids_in "$1")
    [[ -z $pids ]] && return
    # shellcheck disable=SC2086 # one word per process
    kill -9 $pids 2>/dev/null || true
    sleep 0.1
  done
  fail "these processes of cluster $NAME cannot be killed: $pids"
}

remove_cgroups() {
  local root i
  for root in $(cgroup_hierarchies); do
    for ((i = 0; i < 50; i++)); do
      [[ -d $root/$CGROUP ]] || break
      find "$root/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null && break
      sleep 0.1
    done
  done
}

# The interface is named after the cluster; names of interfaces have at most 15 bytes.
interface() { echo "brl-$(sha256sum <<<"$NAME" | cut -c1-8)"; }

# claim_slot: sets SLOT, a number that no other cluster has; it decides the addresses.
# The interface with its address is the claim; one process at a time chooses.
claim_slot() {
  local fd i
  exec {fd}</run
  flock "$fd"
  # From the name, so that a cluster usually gets the same addresses again.
  SLOT=$((16#$(sha256sum <<<"$NAME" | cut -c1-4) % 250))
  for ((i = 0; i < 250; i++)); do
    [[ -n $(ip -4 route show root "10.213.$SLOT.0/24") ]] || break
    SLOT=$(((SLOT + 1) % 250))
  done
  ((i < 250)) || fail "all address ranges 10.213.N.0/24 are in use: take down a cluster that you no longer need"
  ip link add "$(interface)" type veth peer name "$(interface)-in"
  ip address add "10.213.$SLOT.1/24" dev "$(interface)"
  ip link set "$(interface)" up
  exec {fd}<&-
}

remove_interface() { ip link delete "$(interface)" 2>/dev/null || true; }

start_namespaces() {
  local pid index addresses=()
  # The control plane has that of the first, also where no node is real.
  for ((index = 1; index <= (NODES > 0 ? NODES : 1); index++)); do addresses+=("10.213.$SLOT.$((index + 1))/24"); done
  make_cgroups
  (
    join_cgroups
    close_inherited
    exec setsid unshare --net "$LOCAL_DIR/lib/init" "$STATE" uplink "$SERVICE_CIDR" "$POD_CIDR" "${addresses[@]}"
  ) </dev/null >>"$STATE/logs/supervisor.log" 2>&1 &
  pid=$!
  disown "$pid"
  wait_for 5 other_netns "$pid" || fail "no network namespace for the cluster: see $STATE/logs/supervisor.log"
  ip link set "$(interface)-in" name uplink netns "$pid"
  wait_for 10 has_init || fail "the cluster's first process did not start: see $STATE/logs/supervisor.log"
}

has_init() { [[ -n $(init_pid) ]]; }

# Locks held by this script must not live on in the cluster.
close_inherited() {
  local fd
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    ((fd > 2)) && eval "exec $fd>&-"
  done
}

other_netns() { [[ -e /proc/$1 && $(readlink "/proc/$1/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }

# inside COMMAND...: runs a command in the cluster's namespaces.
inside() { nsenter --target "$(init_pid)" --net --pid --mount -- "$@"; }
