"""Looks for anything a command should not have. The tests give TRIED (name -> expression); what an expression finds is
printed as FOUND, what it is denied as nothing. One line per try."""
import ctypes, glob, http.client, json, os, re, socket, ssl, stat, struct, sys

CREDENTIAL = re.compile(
    rb"eyJ[\w-]{10,}\.eyJ|-----BEGIN|client-key|certificate-authority|(?i:password|secret_?key|api_?key|token)\s*[=:]|" + MARKER
)
libc = ctypes.CDLL(None, use_errno=True)


def read(path, size=1 << 20):
    """What is in a file; FIFOs do not block."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def credentials(*patterns):
    """Files with something like a credential in them."""
    found = []
    for pattern in patterns:
        for path in glob.glob(pattern, recursive=True):
            if path.startswith(f"/proc/{os.getpid()}/"):
                continue
            try:
                text = read(path)
            except OSError:
                continue
            if CREDENTIAL.search(text):
                found.append((path, CREDENTIAL.search(text).group()[:40]))
    return found


def exist(*patterns):
    return [path for pattern in patterns for path in glob.glob(pattern)]


def opened(path, flags=os.O_RDWR):
    """Opening a thing for writing is a find."""
    os.close(os.open(path, flags | os.O_NONBLOCK))
    return path


def call(name, *args):
    """A system call that succeeds is a find."""
    if getattr(libc, name)(*args) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return name


def any_of(attempt, things):
    """The first of these that is got; when none is, why the last was not."""
    denied = None
    for thing in things:
        try:
            if found := attempt(thing):
                return found
        except OSError as error:
            denied = error
    if denied:
        raise denied


def device(major):
    """A disk of the host that can be read."""
    path = f"/tmp/device-{major}"
    os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(major, 0))
    try:
        return read(path, 512)
    finally:
        os.unlink(path)


def wrote(path, text="x"):
    with open(path, "w") as file:
        file.write(text)
    return path


def http_get(host, port, path, tls=True, method="GET", body=None):
    """An answer other than a refusal."""
    if tls:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    text = answer.read(2000)
    if answer.status in (401, 403):
        raise PermissionError(f"HTTP {answer.status}")
    return answer.status, text[:200]


def connected(kind, address):
    with socket.socket(kind, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(address)
    return address


for name, attempt in TRIED.items():
    try:
        found = eval(attempt)
    except Exception as denied:
        found, why = None, f"{type(denied).__name__}: {denied}"
    else:
        why = "none there"
    print(f"FOUND {name}: {found!r}" if found else f"nothing {name}: {why}"[:120], flush=True)
print(f"tried {len(TRIED)} as {os.getuid()}", flush=True)
