//! A disk that fails where a test wants it to: a directory, seen through a file system of ours (FUSE). Needs root and
//! `/dev/fuse`.
//!
//! A question that hangs was read by us and is never answered: who asked it cannot be killed. So it is for other processes
//! to ask: were a test killed while a thread of its own waits for an answer of another, it would never end, and nothing
//! would end this disk. `echo 1 >/sys/fs/fuse/connections/*/abort` (a mount of the type fusectl) does.

#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::unwrap_used, clippy::expect_used)]

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, SessionACL, TimeOrNow, WriteFlags,
};
use rustix::fs::{CWD, Mode, OFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// EIO, when a file is read or a directory listed.
    Fails,
    /// This error number, when one of these is asked.
    Answers(Question, i32),
    /// No answer to the same.
    Hangs,
    /// No answer to any question about it.
    HangsWhole,
}

/// What is asked about a path before anything in it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// What it is (`stat`).
    Stat,
    /// To open it.
    Open,
    /// Where a link points to.
    ReadLink,
}

/// Hold it for as long as the disk is there; dropped, it answers all that it holds back.
pub(crate) struct FaultyDisk {
    disk: Disk,
    mounted: Option<BackgroundSession>,
    unmount: fn(&Path),
    at: tempfile::TempDir,
}

impl FaultyDisk {
    /// An empty one.
    pub(crate) fn mount() -> Self {
        let unmount = |at: &Path| _ = std::process::Command::new("umount").arg("-l").arg(at).output();
        Self::start(unmount, |disk, at, config| fuser::spawn_mount(disk, at, &config))
    }

    /// One that other programs mount, such as in another namespace: with these options of `mount`, among them the number
    /// of a file that they inherit.
    pub(crate) fn mount_by(mount: fn(&str, &Path), unmount: fn(&Path)) -> Self {
        Self::start(unmount, |disk, at, config| {
            let device = rustix::fs::open("/dev/fuse", OFlags::RDWR, Mode::empty())?;
            let number = device.as_raw_fd();
            mount(&format!("fd={number},rootmode=40000,user_id=0,group_id=0,allow_other"), at);
            fuser::Session::from_fd(disk, device, SessionACL::All, config)?.spawn()
        })
    }

    fn start(unmount: fn(&Path), mount: impl FnOnce(Disk, &Path, Config) -> io::Result<BackgroundSession>) -> Self {
        let at = tempfile::tempdir().unwrap();
        let state = State::new();
        fs::set_permissions(state.backing.path(), Permissions::from_mode(0o777)).unwrap();
        let disk = Disk(Arc::new(state));
        let mut config = Config::default();
        config.n_threads = Some(2);
        config.acl = SessionACL::All;
        let mounted = mount(disk.clone(), at.path(), config).expect("FUSE needs root and /dev/fuse");
        Self { disk, mounted: Some(mounted), unmount, at }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }

    /// Where its content is, behind its back: nothing fails there.
    pub(crate) fn backing(&self) -> &Path {
        self.disk.0.backing.path()
    }

    /// From now on, at this path.
    pub(crate) fn set(&self, path: &str, fault: Fault) {
        self.disk.0.faults.lock().unwrap().insert(path.into(), fault);
    }

    /// All is well from now on; what hangs gets its answer: an error.
    pub(crate) fn mend(&self) {
        self.disk.0.faults.lock().unwrap().clear();
        self.disk.0.held.lock().unwrap().clear();
    }

    /// Questions that wait for their answer.
    pub(crate) fn held(&self) -> usize {
        self.disk.0.held.lock().unwrap().len()
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.disk.0.over.store(true, Ordering::SeqCst);
        self.mend();
        drop(self.mounted.take());
        // Somebody else may still have it open.
        (self.unmount)(self.at.path());
    }
}

#[derive(Clone)]
struct Disk(Arc<State>);

struct State {
    backing: tempfile::TempDir,
    /// Paths of inodes from the root, whose number is 1.
    paths: Mutex<HashMap<u64, PathBuf>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    next: AtomicU64,
    faults: Mutex<HashMap<PathBuf, Fault>>,
    /// Replies answer with an error when they are dropped.
    held: Mutex<Vec<Box<dyn std::any::Any + Send>>>,
    /// Nobody shall read on from it.
    over: AtomicBool,
}

impl State {
    fn new() -> Self {
        Self {
            backing: tempfile::tempdir().unwrap(),
            paths: Mutex::new(HashMap::from([(1, PathBuf::new())])),
            files: Mutex::default(),
            next: AtomicU64::new(1),
            faults: Mutex::default(),
            held: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    fn path(&self, node: INodeNo) -> PathBuf {
        self.paths.lock().unwrap().get(&u64::from(node)).cloned().unwrap_or_else(|| "forgotten".into())
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> PathBuf {
        self.path(parent).join(name)
    }

    fn behind(&self, path: &Path) -> PathBuf {
        self.backing.path().join(path)
    }

    fn fault(&self, path: &Path) -> Option<Fault> {
        let fault = self.faults.lock().unwrap().get(path).copied();
        fault.or_else(|| self.over.load(Ordering::SeqCst).then_some(Fault::Fails))
    }

    fn hangs_whole(&self, path: &Path) -> bool {
        self.fault(path) == Some(Fault::HangsWhole)
    }

    fn asked(&self, path: &Path, question: Question) -> io::Result<()> {
        match self.fault(path) {
            Some(Fault::Answers(to, number)) if to == question => Err(io::Error::from_raw_os_error(number)),
            _ => Ok(()),
        }
    }

    fn hold(&self, reply: impl Send + 'static) {
        self.held.lock().unwrap().push(Box::new(reply));
    }

    fn attributes(&self, path: &Path) -> io::Result<FileAttr> {
        self.asked(path, Question::Stat)?;
        let metadata = fs::symlink_metadata(self.behind(path))?;
        let node = if path.as_os_str().is_empty() { 1 } else { metadata.ino() };
        self.paths.lock().unwrap().insert(node, path.to_owned());
        Ok(attributes(node, &metadata))
    }

    fn keep(&self, file: File) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        self.files.lock().unwrap().insert(number, Arc::new(file));
        FileHandle(number)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        let files = self.files.lock().unwrap();
        files.get(&u64::from(handle)).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn open(&self, path: &Path, flags: i32, mode: u32) -> io::Result<File> {
        // Where to write, and past which cache, is the kernel's matter on the other side.
        let flags = OFlags::from_bits_retain(flags.cast_unsigned()) - OFlags::APPEND - OFlags::DIRECT;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.behind(path), flags, Mode::from_raw_mode(mode))?.into())
    }

    /// What was made is of the mode and the user that were asked for.
    fn made(&self, path: &Path, mode: Option<u32>, asked: &Request) -> io::Result<FileAttr> {
        std::os::unix::fs::lchown(self.behind(path), Some(asked.uid()), Some(asked.gid()))?;
        if let Some(mode) = mode {
            fs::set_permissions(self.behind(path), Permissions::from_mode(mode))?;
        }
        self.attributes(path)
    }
}

fn attributes(node: u64, of: &Metadata) -> FileAttr {
    let time = |seconds: i64, nanoseconds: i64| {
        let since = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0));
        SystemTime::UNIX_EPOCH + since
    };
    FileAttr {
        ino: INodeNo(node),
        size: of.len(),
        blocks: of.blocks(),
        atime: time(of.atime(), of.atime_nsec()),
        mtime: time(of.mtime(), of.mtime_nsec()),
        ctime: time(of.ctime(), of.ctime_nsec()),
        crtime: time(of.ctime(), of.ctime_nsec()),
        kind: kind(of.file_type()),
        perm: u16::try_from(of.mode() & 0o7777).unwrap(),
        nlink: u32::try_from(of.nlink()).unwrap(),
        uid: of.uid(),
        gid: of.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind(of: fs::FileType) -> FileType {
    if of.is_dir() {
        FileType::Directory
    } else if of.is_symlink() {
        FileType::Symlink
    } else if of.is_fifo() {
        FileType::NamedPipe
    } else if of.is_socket() {
        FileType::Socket
    } else {
        FileType::RegularFile
    }
}

/// For how long the kernel keeps an answer: every question comes here.
const AT_ONCE: Duration = Duration::ZERO;

macro_rules! answer {
    ($reply:ident, $result:expr, |$value:ident| $answer:expr) => {
        match $result {
            Ok($value) => $answer,
            Err(error) => $reply.error(Errno::from(io::Error::from(error))),
        }
    };
}

impl Filesystem for Disk {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // As on a real disk: who waits for one entry of a directory does not hold up the others.
        config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS).map_err(|_| io::Error::from_raw_os_error(libc::ENOSYS))
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = self.0.child(parent, name);
        if self.0.hangs_whole(&path) {
            return self.0.hold(reply);
        }
        answer!(reply, self.0.attributes(&path), |found| reply.entry(&AT_ONCE, &found, Generation(0)));
    }

    fn getattr(&self, _: &Request, node: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let path = self.0.path(node);
        if self.0.hangs_whole(&path) {
            return self.0.hold(reply);
        }
        // One that is unlinked has no path any more.
        let open = || Some(attributes(u64::from(node), &self.0.file(handle?).ok()?.metadata().ok()?));
        let found = self.0.attributes(&path).or_else(|error| open().ok_or(error));
        answer!(reply, found, |found| reply.attr(&AT_ONCE, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let path = self.0.path(node);
        let behind = self.0.behind(&path);
        let set = || {
            std::os::unix::fs::lchown(&behind, uid, gid)?;
            if let Some(mode) = mode {
                fs::set_permissions(&behind, Permissions::from_mode(mode & 0o7777))?;
            }
            if let Some(size) = size {
                File::options().write(true).open(&behind)?.set_len(size)?;
            }
            self.0.attributes(&path)
        };
        answer!(reply, set(), |now| reply.attr(&AT_ONCE, &now));
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        let path = self.0.path(node);
        let target = self.0.asked(&path, Question::ReadLink).and_then(|()| fs::read_link(self.0.behind(&path)));
        answer!(reply, target, |target| reply.data(target.as_os_str().as_bytes()));
    }

    fn mkdir(&self, asked: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let path = self.0.child(parent, name);
        let entry = fs::create_dir(self.0.behind(&path)).and_then(|()| self.0.made(&path, Some(mode & !umask), asked));
        answer!(reply, entry, |entry| reply.entry(&AT_ONCE, &entry, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, fs::remove_file(self.0.behind(&self.0.child(parent, name))), |_done| reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, fs::remove_dir(self.0.behind(&self.0.child(parent, name))), |_done| reply.ok());
    }

    fn symlink(&self, asked: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let path = self.0.child(parent, name);
        let made = std::os::unix::fs::symlink(target, self.0.behind(&path));
        let made = made.and_then(|()| self.0.made(&path, None, asked));
        answer!(reply, made, |made| reply.entry(&AT_ONCE, &made, Generation(0)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (self.0.child(parent, name), self.0.child(to_parent, to_name));
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let renamed = rustix::fs::renameat_with(CWD, self.0.behind(&from), CWD, self.0.behind(&to), flags);
        if renamed.is_ok() {
            for path in self.0.paths.lock().unwrap().values_mut() {
                if let Ok(below) = path.strip_prefix(&from) {
                    *path = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                }
            }
        }
        answer!(reply, renamed, |_done| reply.ok());
    }

    fn link(&self, _: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = self.0.child(parent, name);
        let made = fs::hard_link(self.0.behind(&self.0.path(node)), self.0.behind(&path));
        let made = made.and_then(|()| self.0.attributes(&path));
        answer!(reply, made, |made| reply.entry(&AT_ONCE, &made, Generation(0)));
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let path = self.0.path(node);
        let opened = self.0.asked(&path, Question::Open).and_then(|()| self.0.open(&path, flags.0, 0));
        answer!(reply, opened, |file| reply.opened(self.0.keep(file), FopenFlags::FOPEN_DIRECT_IO));
    }

    fn create(
        &self,
        asked: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let path = self.0.child(parent, name);
        let flags = flags | libc::O_CREAT;
        let opened = self.0.open(&path, flags, 0o600).and_then(|file| {
            let attributes = self.0.made(&path, Some(mode & !umask & 0o7777), asked)?;
            Ok((attributes, self.0.keep(file)))
        });
        answer!(reply, opened, |opened| {
            reply.created(&AT_ONCE, &opened.0, Generation(0), opened.1, FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.fault(&self.0.path(node)) {
            Some(Fault::Fails) => return reply.error(Errno::EIO),
            Some(Fault::Hangs | Fault::HangsWhole) => return self.0.hold(reply),
            Some(Fault::Answers(..)) | None => {}
        }
        let mut bytes = vec![0; size as usize];
        let read = self.0.file(handle).and_then(|file| file.read_at(&mut bytes, offset));
        answer!(reply, read, |read| reply.data(bytes.get(..read).unwrap()));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.0.file(handle).and_then(|file| file.write_at(data, offset));
        answer!(reply, written, |written| reply.written(u32::try_from(written).unwrap()));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.files.lock().unwrap().remove(&u64::from(handle));
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let path = self.0.path(node);
        match self.0.fault(&path) {
            Some(Fault::Fails) => return reply.error(Errno::EIO),
            Some(Fault::Hangs | Fault::HangsWhole) => return self.0.hold(reply),
            Some(Fault::Answers(..)) | None => {}
        }
        let entries = fs::read_dir(self.0.behind(&path)).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        answer!(reply, entries, |entries| {
            let mut entries: Vec<_> =
                entries.iter().map(|entry| (entry.file_name(), entry.file_type().unwrap())).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            for ((name, of), number) in entries.iter().zip(1u64..).skip(usize::try_from(offset).unwrap()) {
                // The number is asked for when the entry is.
                if reply.add(INodeNo(u64::MAX), number, kind(*of), name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        answer!(reply, rustix::fs::statvfs(self.0.backing.path()), |of| {
            reply.statfs(of.f_blocks, of.f_bfree, of.f_bavail, of.f_files, of.f_ffree, 4096, 255, 4096);
        });
    }
}
