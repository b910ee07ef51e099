//! What a hostile command tries, as data.

/// Where a command looks for credentials, and how it tries to get out of its container or at what is ours: a name, and a
/// Python expression with the words of `hostile/search.py` that is true when it got something. Addresses of the cloud's
/// metadata are not tried: tests talk to nothing outside the cluster.
pub const TRIED: [(&str, &str); 61] = [
    // Its own environment and files.
    ("own environment", r#"CREDENTIAL.search(b"\n".join(k + b"=" + v for k, v in os.environb.items()))"#),
    ("service account token", r#"exist("/var/run/secrets/*", "/run/secrets/*")"#),
    ("files of the platform", r#"credentials("/.bundlerun/bin/**", "/.bundlerun/record/**", "/.bundlerun/*")"#),
    (
        "request only holds the request",
        r#"set(json.load(open("/.bundlerun/request/request.json"))) - {"command", "timeLimitSeconds", "stopGraceSeconds", "diskBytes", "save", "registries"}"#,
    ),
    (
        "other metadata of the pod",
        r#"[e for e in os.listdir("/.bundlerun/request") if not e.startswith("..") and e not in ("request.json", "stop")]"#,
    ),
    ("an order to stop that nobody gave", r#"open("/.bundlerun/request/stop").read()"#),
    (
        "credentials in usual places",
        r#"exist("/root/.kube/*", "/root/.docker/*", "/etc/kubernetes/*", "/var/lib/kubelet/*", "/root/.aws/*", "/etc/bundlerun/*", "/var/lib/bundlerun*")"#,
    ),
    (
        "credentials anywhere in /etc, /run, /tmp, /dev/shm",
        r#"[f for f in credentials("/etc/*", "/run/**", "/tmp/**", "/dev/shm/**") if MARKER in f[1]]"#,
    ),
    ("the helper's termination message", r#"read("/dev/termination-log")"#),
    // Mounts.
    (
        "mounts with credentials",
        r#"re.findall(r"\S*(?:serviceaccount|kube-api-access|~secret|kubeconfig)\S*", open("/proc/self/mountinfo").read())"#,
    ),
    (
        "mounts of host directories",
        r#"re.findall(r" (/etc|/root|/var|/home|/opt)(?:/kubelet|/containerd|/lib)? /(?!etc/hosts|etc/hostname|etc/resolv)\S* ", open("/proc/self/mountinfo").read())"#,
    ),
    (
        "sockets of the host",
        r#"exist("/run/containerd/*", "/var/run/docker.sock", "/run/crio/*", "/var/lib/kubelet/*/*.sock")"#,
    ),
    ("abstract sockets", r#"[l for l in open("/proc/net/unix").read().splitlines()[1:] if "@" in l]"#),
    // Processes.
    ("environments of all processes", r#"credentials("/proc/[0-9]*/environ")"#),
    ("command lines of all processes", r#"credentials("/proc/[0-9]*/cmdline")"#),
    (
        "processes of others",
        r#"[p for p in glob.glob("/proc/[0-9]*/cmdline") if b"bundle-operator" in read(p).split(b"\0")[0]]"#,
    ),
    ("environment of PID 1", r#"read("/proc/1/environ")"#),
    ("memory of PID 1", r#"opened("/proc/1/mem", os.O_RDONLY)"#),
    ("memory map of PID 1", r#"read("/proc/1/maps")"#),
    ("auxiliary vector of PID 1", r#"read("/proc/1/auxv")"#),
    ("open files of PID 1", r#"os.listdir("/proc/1/fd") and any_of(os.readlink, glob.glob("/proc/1/fd/*"))"#),
    ("root of PID 1", r#"os.listdir("/proc/1/root")"#),
    ("working directory of PID 1", r#"os.listdir("/proc/1/cwd")"#),
    ("stack of PID 1", r#"read("/proc/1/stack")"#),
    ("system call of PID 1", r#"read("/proc/1/syscall")"#),
    ("ptrace attach to PID 1", r#"call("ptrace", 16, 1, None, None)"#),
    ("ptrace seize of PID 1", r#"call("ptrace", 0x4206, 1, None, None)"#),
    (
        "reading PID 1's memory",
        r#"call("process_vm_readv", 1, (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8), 1, (ctypes.c_size_t * 2)(0x400000, 8), 1, 0)"#,
    ),
    ("a descriptor of PID 1", r#"call("syscall", 438, libc.syscall(434, 1, 0), 3, 0)"#),
    ("stopping PID 1", r#"(os.kill(1, 19), open("/proc/1/stat").read().split()[2] == "T")[1]"#),
    ("comparing descriptors of PID 1", r#"call("syscall", 312, os.getpid(), 1, 0, 0, 0)"#),
    // Kernel.
    ("kernel keys", r#"[l for l in open("/proc/keys").read().splitlines() if "token" in l.lower() or "dns" in l]"#),
    ("kernel memory", r#"opened("/proc/kcore", os.O_RDONLY) and read("/proc/kcore", 64)"#),
    ("kernel log", r#"read("/dev/kmsg")"#),
    ("physical memory", r#"opened("/dev/mem", os.O_RDONLY)"#),
    ("core pattern", r#"wrote("/proc/sys/kernel/core_pattern", "|/x")"#),
    ("sysrq", r#"wrote("/proc/sysrq-trigger", "h")"#),
    ("firmware", r#"exist("/sys/firmware/*")"#),
    (
        "cgroup release agent",
        r#"any_of(wrote, exist("/sys/fs/cgroup/*/release_agent", "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"))"#,
    ),
    ("kernel module", r#"call("syscall", 313, -1, b"", 0) "#),
    ("bpf", r#"call("syscall", 321, 0, (ctypes.c_int * 32)(2, 4, 4, 1), 128)"#),
    ("disks", r"any_of(device, (8, 254, 259, 253, 7))"),
    // Changing what is ours.
    ("altering the runner", r#"opened("/.bundlerun/bin/bundle-runner", os.O_WRONLY)"#),
    ("replacing the runner", r#"os.rename("/.bundlerun/bin/bundle-runner", "/.bundlerun/bin/x") is None"#),
    ("ordering an end", r#"wrote("/.bundlerun/bin/end")"#),
    ("altering the request", r#"wrote("/.bundlerun/request/request.json")"#),
    ("altering the request's data", r#"wrote(os.path.realpath("/.bundlerun/request/request.json"))"#),
    ("mounting over the runner", r#"call("mount", b"tmpfs", b"/.bundlerun/bin", b"tmpfs", 0, None)"#),
    ("remounting the runner", r#"call("mount", None, b"/.bundlerun/bin", None, 32 | 4096, None)"#),
    ("unmounting the runner", r#"call("umount2", b"/.bundlerun/bin", 2)"#),
    ("a user namespace", r#"call("unshare", 0x10000000)"#),
    ("a mount namespace", r#"call("unshare", 0x20000)"#),
    ("the namespaces of PID 1", r#"os.open("/proc/1/ns/mnt", os.O_RDONLY)"#),
    // The network, without credentials.
    ("secrets of the namespace", r#"http_get(API, API_PORT, f"/api/v1/namespaces/{NAMESPACE}/secrets")"#),
    ("pods of all namespaces", r#"http_get(API, API_PORT, "/api/v1/pods")"#),
    (
        "runs of the namespace",
        r#"http_get(API, API_PORT, f"/apis/bundlerun.dev/v1alpha1/namespaces/{NAMESPACE}/bundleruns")"#,
    ),
    ("creating a pod", r#"http_get(API, API_PORT, f"/api/v1/namespaces/{NAMESPACE}/pods", method="POST", body="{}")"#),
    (
        "a token of the service account",
        r#"http_get(API, API_PORT, f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token", method="POST", body="{}")"#,
    ),
    ("the kubelet", r#"http_get(NODE, 10250, "/pods")"#),
    (
        "running something by the kubelet",
        r#"http_get(NODE, 10250, f"/run/{NAMESPACE}/x-1/run", method="POST", body="id")"#,
    ),
    (
        "the kubelet's open port, etcd, scheduler, controllers, proxy",
        r"[connected(socket.AF_INET, (NODE, port)) for port in (10255, 2379, 10259, 10257, 10249) if socket.socket().connect_ex((NODE, port)) == 0]",
    ),
];

/// `hostile/search.py` with the list above, as a program for `argv`.
pub fn search(marker: &str, namespace: &str, node: &str) -> Vec<String> {
    let tried: Vec<String> = TRIED.iter().map(|(name, attempt)| format!("{name:?}: {},", python(attempt))).collect();
    let given = format!(
        "MARKER = {marker:?}.encode()\nNAMESPACE = {namespace:?}\nNODE = {node:?}\n\
         import os\nAPI, API_PORT = os.environ['KUBERNETES_SERVICE_HOST'], int(os.environ['KUBERNETES_SERVICE_PORT'])\n\
         TRIED = {{\n{}\n}}\n",
        tried.join("\n")
    );
    vec!["python3".into(), "-c".into(), given + include_str!("hostile/search.py")]
}

fn python(text: &str) -> String {
    format!("r'''{text}'''")
}

/// What a command does to the tree that the helper walks and to the output it reads. Each is followed by `exit 0`.
pub const TREES: [(&str, &str); 16] = [
    ("stdout-to-request", "ln -sf /.bundlerun/request/request.json $BUNDLE_STDOUT"),
    ("stdout-to-environ", "ln -sf /proc/1/environ $BUNDLE_STDOUT"),
    ("stdout-to-self", "ln -sf /proc/self/environ $BUNDLE_STDOUT; ln -sf /proc/self/maps $BUNDLE_STDERR"),
    ("stdout-to-host", "ln -sf /etc/passwd $BUNDLE_STDOUT; ln -sf /bundle-operator $BUNDLE_STDERR"),
    ("stdout-fifo", "cd /.bundlerun/output; rm stdout stderr; mkfifo stdout stderr"),
    ("stdout-directory", "cd /.bundlerun/output; rm stdout; mkdir -p stdout/x"),
    ("stdout-device", "cd /.bundlerun/output; rm stdout; mknod stdout c 1 5 || mkfifo stdout"),
    ("stdout-chain", "cd /.bundlerun/output; mkdir d; ln -s /proc/1 d/p; ln -sf d/p/environ stdout"),
    ("stdout-sparse", "cd /.bundlerun/output; rm stdout; truncate -s 10T stdout"),
    ("links-out", "ln -s / root; ln -s /proc/self/environ e; ln -s . loop; ln -s ../../.. up; ln -s /proc/1/fd fds"),
    ("fifos", "for i in $(seq 200); do mkfifo f$i; done; mknod zero c 1 5; mknod disk b 8 0; true"),
    (
        "deep",
        "python3 -c 'import os\nfor i in range(5000):\n  os.mkdir(\"d\"); os.chdir(\"d\")\nopen(\"deepest\", \"w\").write(\"x\")'",
    ),
    (
        "names",
        r#"python3 -c 'import os
for n in (b"a\nb", b"\xff\xfe", b"-rf", b"\x1b[31m", b" ", b"*", b"\\", b"x" * 255, b"$(id)", b"{}", "é".encode(), b"\r", b"\x7f"):
  open(n, "w").write("x")'"#,
    ),
    ("hard-links", "echo x > a; for i in $(seq 500); do ln a l$i; done; ln /etc/passwd p 2>/dev/null; true"),
    (
        "replaced",
        "mkdir real; echo x > real/x; end=$((SECONDS+4)); while [ $SECONDS -lt $end ]; do ln -sfn / swap; rm swap; mkdir swap; rmdir swap; ln -sfn /proc/1/environ $BUNDLE_STDERR; rm $BUNDLE_STDERR; echo x > $BUNDLE_STDERR; done",
    ),
    (
        "many",
        "python3 -c 'import os\nfor d in range(100):\n  os.mkdir(f\"d{d}\")\n  for i in range(1000): open(f\"d{d}/{i}\", \"w\").close()'",
    ),
];

/// What a command does to the directory of the record, and how the run ends that then exits with 3, as root and as 1000.
/// A forged record says exit code 0.
pub const RECORDS: [(&str, &str, &str); 18] = [
    ("symlink", "rm -f $R/record.json; ln -s /proc/self/environ $R/record.json", "CommandFailed"),
    ("fifo", "mkfifo $R/record.json", "CommandFailed"),
    ("directory", "mkdir -p $R/record.json/full", "CommandFailed"),
    ("sparse", "truncate -s 10G $R/record.json", "CommandFailed"),
    ("forged", "echo $FORGED > $R/record.json", "CommandFailed"),
    (
        "forged-by-daemon",
        "setsid sh -c 'while :; do echo $FORGED > '$R'/record.json; done' >/dev/null 2>&1 & sleep 0.5",
        "CommandFailed",
    ),
    ("forged-draft", "echo $FORGED > $R/record.tmp; ln -f $R/record.tmp $R/record.json; sync", "CommandFailed"),
    (
        "draft-directory",
        "rm -f $R/record.tmp; mkdir -p $R/record.tmp/full $R/record.moved/full $R/record.json/full",
        "CommandFailed",
    ),
    ("draft-link", "ln -sf /dev/null $R/record.tmp", "CommandFailed"),
    ("closed-directory", "chmod 000 $R 2>/dev/null; chmod 000 $R/* 2>/dev/null; true", "CommandFailed"),
    ("emptied", "rm -rf $R/* $R/.[!.]*", "CommandFailed"),
    ("started-removed", "rm -f $R/started", "CommandFailed"),
    ("lock-removed", "rm -f $R/lock; mkdir $R/lock", "CommandFailed"),
    ("lock-wanted", "setsid flock $R/lock sleep 1h & setsid flock -s $R/lock sleep 1h & sleep 0.3", "CommandFailed"),
    ("full-directory", "for i in $(seq 2000); do : > $R/x$i; done", "CommandFailed"),
    // The command and the runner have one user, so it can take the runner's right to write. The kubelet knows better.
    ("silenced", "prlimit --pid 1 --fsize=0 && rm -f $R/record*", "RecordMissing"),
    ("silenced-and-hidden", "prlimit --pid 1 --fsize=0 && rm -f $R/*", "RecordMissing"),
    (
        "silenced-and-forged",
        "rm -f $R/record*; echo $FORGED > $R/record.json; prlimit --pid 1 --fsize=0",
        "RecordContradicted",
    ),
];

/// Before [`RECORDS`].
pub const RECORDS_PRELUDE: &str = "R=/.bundlerun/record; export FORGED='{\"exitCode\":0,\"finishedAtMs\":1}'; ";
