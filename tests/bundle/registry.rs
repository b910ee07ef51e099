//! A registry of a test's own: by `BUNDLE_TEST_REGISTRY` CNCF distribution (`distribution`, the default), Debian's
//! `docker-registry`, which is distribution 2.8, or `crane registry serve` (`crane`).

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A program that is a registry.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Program {
    Distribution,
    DockerRegistry,
    /// It can be set up in no way: no TLS, no logins.
    Crane,
}

impl Program {
    /// What the tests are to run with; `more` is what a test adds to its configuration.
    fn asked_for(more: &str) -> Self {
        match env::var("BUNDLE_TEST_REGISTRY").as_deref() {
            Ok("docker-registry") => Self::DockerRegistry,
            Ok("crane") if more.is_empty() => Self::Crane,
            Ok("crane") => {
                left_out("crane has no TLS and no logins: distribution is in its place");
                Self::Distribution
            }
            Err(_) | Ok("distribution") => Self::Distribution,
            Ok(other) => panic!("BUNDLE_TEST_REGISTRY={other}: none of distribution, docker-registry, crane"),
        }
    }
}

/// A registry that ends with the test.
pub(crate) struct Registry {
    pub(crate) host: String,
    program: Program,
    dir: TempDir,
    child: Option<Child>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Registry {
    /// At an address of this machine; `more` is appended to its configuration.
    pub(crate) fn start_at(address: &str, more: &str) -> Self {
        Self::start_in(&env::temp_dir(), address, more)
    }

    /// With its store in a new directory below `dir`.
    pub(crate) fn start_in(dir: &Path, address: &str, more: &str) -> Self {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let host = format!("{address}:{}", free_port(address));
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: {host:?}\n{more}",
            dir.path().join("store").display()
        );
        fs::write(dir.path().join("config.yaml"), config).unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        let mut registry = Self { host, program: Program::asked_for(more), dir, child: None };
        registry.go_on();
        registry
    }

    /// One that lets in only who is in `passwords`, as `htpasswd -B` writes them.
    pub(crate) fn start_with_passwords(address: &str, passwords: &str) -> (Self, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), passwords).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.path().display());
        (Self::start_at(address, &auth), file)
    }

    /// Starts it, again.
    pub(crate) fn go_on(&mut self) {
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let (variable, name) = match self.program {
            Program::Distribution => ("REGISTRY_BIN", "registry"),
            Program::DockerRegistry => ("DOCKER_REGISTRY_BIN", "docker-registry"),
            Program::Crane => ("CRANE_BIN", "crane"),
        };
        let mut command = Command::new(tool(variable, name));
        match self.program {
            Program::Crane => {
                let store = self.dir.path().join("store");
                command.args(["registry", "serve", "--address", &self.host, "--disk"]).arg(store);
            }
            _ => _ = command.arg("serve").arg(self.dir.path().join("config.yaml")),
        }
        command.env("OTEL_TRACES_EXPORTER", "none").stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|_| panic!("no `{name}`: set {variable}, or PATH")));
        let until = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(&self.host).is_err() {
            assert!(Instant::now() < until, "the registry did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it goes on with an upload that was cut off. Distribution 2.8 forgets it when asked how much it has.
    #[allow(dead_code)] // not every test binary asks
    pub(crate) fn takes_up_uploads(&self) -> bool {
        let takes_up = self.program == Program::Distribution;
        if !takes_up {
            left_out(&format!("{:?} forgets uploads that are cut off", self.program));
        }
        takes_up
    }

    /// Where it stores.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Whether it stored what has this digest.
    #[allow(dead_code)] // not every test binary asks
    pub(crate) fn has_blob(&self, digest: &str) -> bool {
        stored_in(&self.store()).contains(digest)
    }

    /// Has it lose what has this digest, as its garbage collection does.
    #[allow(dead_code)] // not every test binary collects
    pub(crate) fn lose_blob(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let found = Command::new("find").arg(self.dir.path().join("store")).args(["-name", hex]).output().unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        assert!(!found.is_empty(), "the store has no {digest}");
        for path in found.lines() {
            fs::remove_dir_all(path).unwrap();
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Says by name what this test does not show of the registry that was asked for.
fn left_out(why: &str) {
    println!("LEFT OUT: {}: {why}", std::thread::current().name().unwrap_or_default());
}

/// The digests of the blobs that are in the store of a registry: files of that name, or directories of that name with the
/// `data`.
pub(crate) fn stored_in(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap_or_default());
        let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_digest && (path.is_file() || path.join("data").is_file()) {
            found.insert(format!("sha256:{name}"));
        } else if path.is_dir() {
            found.extend(stored_in(&path));
        }
    }
    found
}

/// Makes `<name>.pem` and `<name>.key`, the certificate of a registry at an address, and `<name>.ca`, its authority.
pub(crate) fn make_certificate(dir: &Path, name: &str, address: &str) {
    let script = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout {name}.ca.key -out {name}.ca -days 2 -subj /CN=authority
        openssl req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.request -subj /CN=registry
        echo subjectAltName=IP:{address} >{name}.names
        openssl x509 -req -in {name}.request -CA {name}.ca -CAkey {name}.ca.key -CAcreateserial -days 2 \\
            -extfile {name}.names -out {name}.pem"
    );
    let made = Command::new("sh").args(["-ec", &script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

pub(crate) fn free_port(address: &str) -> u16 {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) fn tool(variable: &str, name: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| name.into(), PathBuf::from)
}
