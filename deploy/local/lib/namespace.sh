# shellcheck shell=bash
# The cluster's place on the machine: its cgroups, its interface, its processes. All of
# them carry the cluster's name, so that they are found even when the state folder is
# lost.

# Where each cgroup hierarchy is mounted: many with cgroup v1, one with v2.
cgroup_hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts; }

make_cgroups() {
  local root group
  for root in $(cgroup_hierarchies); do
    for group in "$root/$CGROUP" "$root/$CGROUP/system"; do
      mkdir -p "$group"
      if [[ -f $group/cpuset.cpus && ! -f $group/cgroup.controllers ]]; then
        cat "${group%/*}/cpuset.cpus" >"$group/cpuset.cpus"
        cat "${group%/*}/cpuset.mems" >"$group/cpuset.mems"
      fi
    done
    # Only where v2 is all there is: beside v1 its controllers are not the ones in use.
    if [[ $root == /sys/fs/cgroup ]]; then
      for group in "$root" "$root/$CGROUP"; do
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

cluster_pids() {
  local root
  for root in $(cgroup_hierarchies); do
    [[ -d $root/$CGROUP ]] || continue
    find "$root/$CGROUP" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done | sort -un | grep -vx 0 || true
}

# init_pid: the machine's number of the cluster's process 1; empty when there is none.
init_pid() {
  local pid
  for pid in $(cluster_pids); do
    if [[ $(awk '/^NSpid:/ { print $3 }' "/proc/$pid/status" 2>/dev/null) == 1 &&
      $(awk '/^NSpid:/ { print NF }' "/proc/$pid/status" 2>/dev/null) == 3 ]]; then
      echo "$pid"
      return
    fi
  done
}

kill_processes() {
  local pids freezer i
  for freezer in $(cgroup_hierarchies); do
    # A frozen process dies only after it is thawed.
    find "$freezer/$CGROUP" -name freezer.state -exec sh -c 'for f; do echo THAWED >"$f"; done' sh {} + 2>/dev/null || true
  done
  for ((i = 0; i < 100; i++)); do
    pids=$(cluster_pids)
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

# The interface's alias names its cluster.
cluster_interfaces() {
  ip -json link show | jq -r --arg alias "$CGROUP" '.[] | select(.ifalias == $alias) | .ifname'
}

remove_interfaces() {
  local interface
  for interface in $(cluster_interfaces); do
    ip link delete "$interface" 2>/dev/null || true
  done
}

# choose_slot: a free number for this cluster; decides its addresses.
choose_slot() {
  local slot
  for ((slot = 1; slot < 64; slot++)); do
    if ! ip link show "brl$slot" >/dev/null 2>&1 && ! ip -4 route show "10.213.$slot.0/30" | grep -q .; then
      echo "$slot"
      return
    fi
  done
  fail "all 63 address ranges 10.213.N.0/30 are in use: take down a cluster you no longer need"
}

# start_namespaces: the machine's end of the veth pair is made first and holds the slot.
start_namespaces() {
  local pid host_ip=${NODE_IP%.*}.1
  make_cgroups
  (
    join_cgroups
    close_inherited
    exec setsid unshare --net "$LOCAL_DIR/lib/init" "$STATE" uplink "$NODE_IP" "$SERVICE_CIDR"
  ) </dev/null >>"$STATE/logs/supervisor.log" 2>&1 &
  pid=$!
  disown "$pid"
  wait_for 5 other_netns "$pid" || fail "no network namespace for the cluster: see $STATE/logs/supervisor.log"
  ip link set "brl$SLOT-in" name uplink netns "$pid"
  ip address add "$host_ip/30" dev "brl$SLOT"
  ip link set "brl$SLOT" up
}

# Locks held by this script must not live on in the cluster.
close_inherited() {
  local fd
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    ((fd > 2)) && eval "exec $fd>&-"
  done
}

other_netns() { [[ $(readlink "/proc/$1/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }

claim_slot() {
  SLOT=$(choose_slot)
  ip link add "brl$SLOT" type veth peer name "brl$SLOT-in"
  ip link set "brl$SLOT" alias "$CGROUP"
}

# inside COMMAND...: runs a command in the cluster's namespaces.
inside() { nsenter --target "$(init_pid)" --net --pid --mount -- "$@"; }
