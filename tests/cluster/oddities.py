# Fills the working directory with all that a file system lets a program make.
import os

def write(name, content=b"x", mode=0o644):
    with open(name, "wb") as file:
        file.write(content)
    os.chmod(name, mode)

os.umask(0)
os.mkdir("empty", 0o755)
os.mkdir("closed", 0o700)
write("closed/private", b"mine", 0o600)
write("program", b"#!/bin/sh\n", 0o755)
write("read-only", b"r", 0o444)
write("nothing", b"")
write(b"not-utf8-\xff\xfe", b"bytes")
write("line\nbreak", b"n")
write("sp ace 'quote\" $HOME `x`", b"s")
write("ümlaut-日本", b"u")
write(".wh.whited", b"w")
os.mkdir(".wh.folder", 0o755)
write(".wh.folder/inside", b"i")
write(".wh..wh..opq", b"o")
write("-rf", b"dash")
write("a", b"1")
write("a.b", b"2")
os.mkdir("a-dir", 0o755)
write("a-dir/x", b"3")
os.symlink("program", "link")
os.symlink("/etc/passwd", "absolute-link")
os.symlink("nowhere", "dangling-link")
os.symlink("..", "up-link")
os.link("program", "second-name")
os.link("program", "a-dir/third-name")
with open("sparse", "wb") as file:
    file.truncate(64 << 20)
    file.seek(40 << 20)
    file.write(b"in the middle")
os.chmod("sparse", 0o644)
write("random", os.urandom(5 << 20))
write("n" * 255, b"long")
here = os.getcwd()
for level in range(35):
    name = f"{level:03}-" + "d" * 96
    os.mkdir(name, 0o755)
    os.chdir(name)
write("deep", b"deep")
os.chdir(here)
os.mkdir("many", 0o755)
for number in range(2000):
    write(f"many/{number}", str(number).encode())
os.mkfifo("fifo")
