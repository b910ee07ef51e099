# shellcheck shell=bash
# Configuration and start script of every component. The start scripts run inside the
# cluster's namespaces; each waits for what it needs, so they can all start at once.

POD_CIDR=10.88.0.0/16
POD_GATEWAY=10.88.0.1
SERVICE_CIDR=10.96.0.0/16
SERVICE_API_IP=10.96.0.1
DNS_IP=10.96.0.10
REGISTRY_PORT=5000
ETCD_METRICS_PORT=2381

# component NAME: makes its start script from standard input.
component() {
  {
    printf '#!/bin/bash\nset -euo pipefail\n'
    # Fewer rounds of Go's garbage collection: a local cluster is short of CPU before it is short of memory.
    printf 'export GOGC=400 GOMEMLIMIT=1GiB\n'
    declare -f until_ok
    cat
  } >"$STATE/components/$1"
  chmod +x "$STATE/components/$1"
}

# Copied into the start scripts: waits until a command succeeds.
until_ok() { until "$@" >/dev/null 2>&1; do sleep 0.1; done; }

API_READY='until_ok curl -sf --cacert pki/ca.crt --cert pki/admin.crt --key pki/admin.key https://127.0.0.1:6443/readyz'

write_control_plane() {
  # Who measures wants to know what the API server can take, not what its clients are allowed.
  local limits='qps: 200, burst: 400' limit_flags='--kube-api-qps 200 --kube-api-burst 400'
  ((!FAKE_NODES)) || limits='qps: 10000, burst: 10000' limit_flags='--kube-api-qps 10000 --kube-api-burst 10000'
  component etcd <<EOF
# A local cluster need not survive a power cut: skip the fsyncs.
exec bin/etcd --name local --data-dir etcd --unsafe-no-fsync --log-level warn \\
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \\
  --listen-metrics-urls http://$NODE_IP:$ETCD_METRICS_PORT \\
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \\
  --initial-cluster local=http://127.0.0.1:2380
EOF

  cat >"$STATE/config/audit-policy.yaml" <<EOF
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
EOF
  component kube-apiserver <<EOF
until_ok curl -sf http://127.0.0.1:2379/health
# --audit-log-maxsize is in MiB: never rotated, so that tests can count requests.
exec bin/kube-apiserver --etcd-servers http://127.0.0.1:2379 \\
  --bind-address 0.0.0.0 --secure-port 6443 --advertise-address $NODE_IP \\
  --service-cluster-ip-range $SERVICE_CIDR \\
  --tls-cert-file pki/kube-apiserver.crt --tls-private-key-file pki/kube-apiserver.key \\
  --client-ca-file pki/ca.crt \\
  --kubelet-client-certificate pki/kubelet-client.crt --kubelet-client-key pki/kubelet-client.key \\
  --kubelet-preferred-address-types InternalIP \\
  --service-account-issuer https://kubernetes.default.svc.cluster.local \\
  --service-account-key-file pki/service-accounts.pub \\
  --service-account-signing-key-file pki/service-accounts.key \\
  --requestheader-client-ca-file pki/ca.crt --requestheader-allowed-names front-proxy \\
  --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \\
  --requestheader-extra-headers-prefix X-Remote-Extra- \\
  --proxy-client-cert-file pki/front-proxy.crt --proxy-client-key-file pki/front-proxy.key \\
  --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \\
  --max-requests-inflight 800 --max-mutating-requests-inflight 400 \\
  --audit-policy-file config/audit-policy.yaml --audit-log-path $STATE/audit.log \\
  --audit-log-format json --audit-log-maxsize 1000000
EOF

  component kube-controller-manager <<EOF
$API_READY
exec bin/kube-controller-manager --leader-elect=false --bind-address 127.0.0.1 \\
  --kubeconfig kubeconfigs/kube-controller-manager \\
  --authentication-kubeconfig kubeconfigs/kube-controller-manager \\
  --authorization-kubeconfig kubeconfigs/kube-controller-manager \\
  --root-ca-file pki/ca.crt --service-account-private-key-file pki/service-accounts.key \\
  --cluster-signing-cert-file pki/ca.crt --cluster-signing-key-file pki/ca.key \\
  --use-service-account-credentials $limit_flags
EOF

  cat >"$STATE/config/kube-scheduler.yaml" <<EOF
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: $STATE/kubeconfigs/kube-scheduler, $limits}
EOF
  component kube-scheduler <<EOF
$API_READY
exec bin/kube-scheduler --config config/kube-scheduler.yaml --bind-address 127.0.0.1 \\
  --authentication-kubeconfig kubeconfigs/kube-scheduler --authorization-kubeconfig kubeconfigs/kube-scheduler
EOF
}

# node_names INDEX: sets the names of one node's files. The first node's are plain, the
# others end in -INDEX.
node_names() {
  local suffix=''
  (($1 == 1)) || suffix=-$1
  NODE=$NAME-node$suffix
  NODE_ADDRESS=10.213.$SLOT.$(($1 + 1))
  KUBELET=kubelet$suffix CONTAINERD=containerd$suffix FAKE_GPU=fake-gpu$suffix
  GPU_CONTROL=$STATE/config/gpus$suffix
}

# write_node INDEX
write_node() {
  local index=$1 NODE NODE_ADDRESS KUBELET CONTAINERD FAKE_GPU GPU_CONTROL socket join
  node_names "$index"
  socket=$STATE/run/$CONTAINERD.sock
  mkdir -p "$STATE/config/cni-$index" "$STATE/$KUBELET/device-plugins"

  # Everything of a node is in the node's own cgroup: `node-off` finds it there.
  join="for root in $(cgroup_hierarchies | tr '\n' ' '); do echo \$\$ >\$root/$CGROUP/node-$index/system/cgroup.procs; done"

  cat >"$STATE/config/$CONTAINERD.toml" <<EOF
version = 3
root = "$STATE/$CONTAINERD"
state = "/run/$CONTAINERD"
# Would make folders in /opt.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[grpc]
address = "$socket"

[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE nobody may lower oom_score_adj, and no sandbox would start.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["$STATE/bin"]
conf_dir = "$STATE/config/cni-$index"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "nvidia"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia.options]
BinaryName = "$STATE/bin/fake-nvidia-runtime"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "$STATE/bin/runc"

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "$STATE/config/certs.d"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "$REGISTRY_NODE/pause:1"
EOF
  component "$CONTAINERD" <<EOF
$join
export FAKE_NVIDIA_RUNC=$STATE/bin/runc FAKE_NVIDIA_DEVICES=$STATE/devices-$index FAKE_NVIDIA_DRIVER=$STATE/driver
# containerd starts its shim by name.
PATH=$STATE/bin:\$PATH exec bin/containerd --config config/$CONTAINERD.toml
EOF

  # All nodes share one bridge; each gives its pods addresses of its own range. What leaves them is masqueraded by one
  # rule for all (`init`): for rules of each pod and its ports the plugins run iptables some 26 times a pod.
  cat >"$STATE/config/cni-$index/10-pods.conflist" <<EOF
{"cniVersion": "1.0.0", "name": "$NODE", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$STATE/cni",
            "ranges": [[{"subnet": "$POD_CIDR", "gateway": "$POD_GATEWAY",
                         "rangeStart": "10.88.$index.1", "rangeEnd": "10.88.$index.254"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}}
]}
EOF

  cat >"$STATE/config/$KUBELET.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_ADDRESS
healthzPort: 0
containerRuntimeEndpoint: unix://$socket
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/node-$index
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
# The init script shows the kubelet the kernel settings that it wants.
protectKernelDefaults: true
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $STATE/pki/ca.crt}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [$DNS_IP]
resolvConf: $STATE/config/resolv.conf
# A kubelet removes the logs of pods that are not its own.
podLogsDir: $STATE/logs/pods${KUBELET#kubelet}
maxPods: 250
podPidsLimit: 1024
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
kubeAPIQPS: 200
kubeAPIBurst: 400
# A nearly full disk is the machine's normal state; only the last bit is an emergency.
evictionHard:
  memory.available: 50Mi
  nodefs.available: 1%
  nodefs.inodesFree: 1%
  imagefs.available: 1%
  imagefs.inodesFree: 1%
evictionPressureTransitionPeriod: 10s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
EOF
  component "$KUBELET" <<EOF
$join
until_ok test -S $socket
$API_READY
# The path of the device plugins is fixed in the kubelet: each kubelet sees its own there.
PATH=$STATE/bin:\$PATH exec unshare --mount --propagation unchanged bash -c \\
  'mount --bind "\$0" /var/lib/kubelet/device-plugins && exec "\$@"' $STATE/$KUBELET/device-plugins \\
  bin/kubelet --config config/$KUBELET.yaml --kubeconfig kubeconfigs/$KUBELET \\
  --root-dir $STATE/$KUBELET --cert-dir pki/$KUBELET --hostname-override $NODE --node-ip $NODE_ADDRESS \\
  --node-labels bundlerun.dev/cluster=$NAME
EOF

  # Relative: the path of a socket may have at most 107 bytes.
  component "$FAKE_GPU" <<EOF
$join
until_ok test -S $KUBELET/device-plugins/kubelet.sock
exec bin/fake-gpu -device-plugins $KUBELET/device-plugins -control $GPU_CONTROL \\
  -devices $STATE/devices-$index -node $NODE
EOF
}

# write_fake_nodes: nodes without a kubelet. kwok says of their pods what a kubelet would.
write_fake_nodes() {
  local index
  cp "$LOCAL_DIR/kwok.yaml" "$STATE/config/kwok.yaml"
  component kwok <<EOF
$API_READY
exec bin/kwok --kubeconfig kubeconfigs/kwok --config config/kwok.yaml --manage-all-nodes \\
  --server-address 127.0.0.1:10247 --node-lease-duration-seconds 40
EOF
  for ((index = 1; index <= FAKE_NODES; index++)); do
    cat <<EOF
---
apiVersion: v1
kind: Node
metadata: {name: $NAME-node-$index, labels: {kubernetes.io/hostname: $NAME-node-$index}}
status:
  capacity: &has {cpu: "100000", memory: 1Pi, ephemeral-storage: 100Pi, pods: "100000", nvidia.com/gpu: "100000"}
  allocatable: *has
  conditions:
  - {type: Ready, status: "True", reason: Fake, message: a node of kwok}
EOF
  done >"$STATE/config/objects.yaml"
}

# write_driver: what the host of a GPU has, in the places where GKE has it.
write_driver() {
  local version=550.54.14
  mkdir -p "$STATE/driver"/{lib64,bin}
  gcc -shared -fPIC -s -DVERSION=12040 -Wl,-soname,libcuda.so.1 -o "$STATE/driver/lib64/libcuda.so.$version" \
    "$LOCAL_DIR/images/src/libcuda.c"
  ln -s "libcuda.so.$version" "$STATE/driver/lib64/libcuda.so.1"
  printf '#!/bin/sh\necho "Driver Version: %s"\nls /dev/nvidia[0-9]*\n' "$version" >"$STATE/driver/bin/nvidia-smi"
  chmod +x "$STATE/driver/bin/nvidia-smi"
}

write_services() {
  local host
  for host in "$REGISTRY_NODE" "$REGISTRY_HOST"; do
    mkdir -p "$STATE/config/certs.d/$host"
    printf 'server = "http://%s"\n' "$host" >"$STATE/config/certs.d/$host/hosts.toml"
  done
  cat >"$STATE/config/registry.yaml" <<EOF
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: $STATE/registry}
  delete: {enabled: true}
http: {addr: "0.0.0.0:$REGISTRY_PORT"}
EOF
  component registry <<EOF
exec bin/registry serve config/registry.yaml
EOF

  # One is enough: all nodes share the cluster's network namespace.
  cat >"$STATE/config/kube-proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $NAME-node
clusterCIDR: $POD_CIDR
nodePortAddresses: [primary]
oomScoreAdj: 0
clientConnection: {kubeconfig: $STATE/kubeconfigs/kube-proxy}
# Machine-wide limits are not ours to change.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 100ms}
EOF
  component kube-proxy <<EOF
$API_READY
exec bin/kube-proxy --config config/kube-proxy.yaml
EOF

  # Names outside the cluster get an answer from CoreDNS (there are none), not from
  # whatever the machine's own resolver knows.
  : >"$STATE/config/resolv.conf"
  cat >"$STATE/config/Corefile" <<EOF
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
  bind $NODE_IP 127.0.0.1
  errors
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig $STATE/kubeconfigs/coredns
    pods insecure
    ttl 5
  }
}
# The cluster has no way to the outside: say so at once.
.:53 {
  bind $NODE_IP 127.0.0.1
  errors
  template ANY ANY {
    rcode NXDOMAIN
  }
}
EOF
  component coredns <<EOF
$API_READY
exec bin/coredns -conf config/Corefile
EOF

  # CoreDNS runs beside the kubelet, not in a pod, so its Service has no selector.
  cat >"$STATE/config/objects.yaml" <<EOF
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: nvidia}
handler: nvidia
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: runc}
handler: runc
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: $DNS_IP
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints:
- addresses: [$NODE_IP]
ports:
- {name: dns, port: 53, protocol: UDP}
- {name: dns-tcp, port: 53, protocol: TCP}
EOF
}
