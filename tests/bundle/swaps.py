# Swaps files, links, FIFOs and directories in its working directory as fast as it can, until that is gone.
# Arguments: a file that is not its own, and names to swap beside those it makes.
import os, random, sys

secret = sys.argv[1]
names = [str(n) for n in range(40)] + sys.argv[2:]


def put(name):
    with open(name, "wb") as file:
        file.write(b"own" * random.randrange(20000))


def clear(name):
    try:
        os.unlink(name)
    except IsADirectoryError:
        for below in os.listdir(name):
            os.unlink(f"{name}/{below}")
        os.rmdir(name)
    except FileNotFoundError:
        pass


def make(name):
    kind = random.randrange(6)
    if kind == 0:
        put(name)
    elif kind == 1:
        os.symlink(secret, name)
    elif kind == 2:
        os.symlink(os.path.dirname(secret), name)
    elif kind == 3:
        os.mkfifo(name)
    elif kind == 4:
        os.mkdir(name)
        put(f"{name}/{os.path.basename(secret)}")
    else:
        os.symlink("/proc/self/environ", name)


while os.path.exists("quiet"):
    name = random.choice(names)
    try:
        clear(name)
        make(name)
        with open("grows", "ab") as file:
            file.write(b"g" * 1000)
        if os.path.getsize("grows") > 1 << 20:
            os.truncate("grows", 0)
    except OSError:
        pass
