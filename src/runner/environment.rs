//! The command's environment: the container's, with what is missing filled in.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::contract::VARIABLES_MAX_BYTES;
use crate::names::files;

/// Where programs are looked for when the image says nothing; what Docker sets.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Caches are not output: they stay out of the working directory, which is HOME.
const CACHE: &str = crate::names::paths::CACHE;

/// More users than any image has.
const PASSWD_MAX_BYTES: u64 = 1024 * 1024;

/// Variables of a process.
pub(crate) type Environment = BTreeMap<OsString, OsString>;

/// Directories that come before all others of `LD_LIBRARY_PATH` and `PATH`, whatever the image and its `.bashrc` say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Front {
    /// Empty: none.
    pub(crate) libraries: OsString,
    /// Separated by colons. Empty: none.
    pub(crate) programs: OsString,
}

impl Front {
    pub(crate) fn of(libraries: &Path, programs: &[String]) -> Self {
        Self { libraries: libraries.into(), programs: programs.join(":").into() }
    }

    /// Puts them in front.
    pub(crate) fn put(&self, environment: &mut Environment) {
        for (name, front) in [("LD_LIBRARY_PATH", &self.libraries), ("PATH", &self.programs)] {
            if front.is_empty() {
                continue;
            }
            let value = environment.entry(name.into()).or_default();
            // An empty entry would mean the current directory.
            let rest = std::mem::replace(value, front.clone());
            if !rest.is_empty() {
                value.push(":");
                value.push(rest);
            }
        }
    }
}

/// Leaves the values of `names` for the helper, as JSON. A value that cannot be left is missed in the artifact that tells
/// how the output was made, and is no reason to run no command.
pub(crate) fn leave_values(names: &[String], record_dir: &Path) {
    let values: BTreeMap<&String, String> =
        names.iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect();
    let text = serde_json::to_vec(&values).unwrap_or_default();
    if !values.is_empty() && text.len() <= VARIABLES_MAX_BYTES {
        let _ = File::create_new(record_dir.join(files::VARIABLES)).and_then(|mut file| file.write_all(&text));
    }
}

/// Adds what is unset; changes nothing that is set but `PWD`, which has to be `directory`. `user`: a name for a user that
/// the image has none for.
pub(crate) fn complete(
    mut environment: Environment,
    home: &Path,
    directory: Option<&Path>,
    user: Option<&str>,
) -> Environment {
    // Programs ask one or the other.
    let logged_in = ["LOGNAME", "USER"].iter().find_map(|name| environment.get(OsStr::new(name))).cloned();

    let mut default =
        |name: &str, value: &OsStr| environment.entry(name.into()).or_insert_with(|| value.to_owned()).clone();
    default("HOME", home.as_os_str());
    default("PATH", OsStr::new(DEFAULT_PATH));
    let cache = default("XDG_CACHE_HOME", OsStr::new(CACHE));
    let cache = Path::new(&cache);
    default("PIP_CACHE_DIR", cache.join("pip").as_os_str());
    default("HF_HOME", cache.join("huggingface").as_os_str());
    default("CUDA_CACHE_PATH", cache.join("nv").as_os_str());
    // Into a pipe Python prints by the block: what was printed before a kill would be lost.
    default("PYTHONUNBUFFERED", OsStr::new("1"));
    if let Some(user) = user {
        let name = logged_in.unwrap_or_else(|| user.into());
        default("USER", &name);
        default("LOGNAME", &name);
    }
    match directory {
        Some(directory) => environment.insert("PWD".into(), directory.into()),
        None => environment.remove(OsStr::new("PWD")),
    };
    environment
}

/// A name for a user that the image's `passwd` has none for, as with `runAsUser`: without one `getpass.getuser()` and
/// the libraries that use it fail. None: it has one, or we cannot know.
pub(crate) fn name_for(user: u32, passwd: &Path) -> Option<String> {
    let mut text = vec![];
    match File::open(passwd).and_then(|file| file.take(PASSWD_MAX_BYTES).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return None,
    }
    let number = user.to_string();
    let has_number = |line: &[u8]| line.split(|byte| *byte == b':').nth(2) == Some(number.as_bytes());
    (!text.split(|byte| *byte == b'\n').any(has_number)).then(|| format!("user{user}"))
}

/// The directories to look for programs in: of the environment, or the usual ones if it names none.
pub(crate) fn search_path(environment: &Environment) -> &OsStr {
    environment
        .get(OsStr::new("PATH"))
        .map(OsString::as_os_str)
        .filter(|path| !path.is_empty())
        .unwrap_or(OsStr::new(DEFAULT_PATH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        vars.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn what_is_set_stays_also_when_it_is_empty() {
        let given = environment(&[
            ("HOME", ""),
            ("PATH", ""),
            ("XDG_CACHE_HOME", "/x"),
            ("PIP_CACHE_DIR", "/p"),
            ("HF_HOME", "/h"),
            ("CUDA_CACHE_PATH", "/c"),
            ("PYTHONUNBUFFERED", ""),
            ("USER", "u"),
            ("LOGNAME", "l"),
            ("A", "$A"),
        ]);
        assert_eq!(complete(given.clone(), Path::new("/bundle"), None, Some("user7")), given);
    }

    #[test]
    fn the_drivers_directories_come_first() {
        let front = Front::of(Path::new("/driver"), &["/a".to_owned(), "/b".to_owned()]);
        let mut got = environment(&[("PATH", "/bin"), ("LD_LIBRARY_PATH", "/opt")]);
        front.put(&mut got);
        assert_eq!(got, environment(&[("PATH", "/a:/b:/bin"), ("LD_LIBRARY_PATH", "/driver:/opt")]));
        let mut got = environment(&[("LD_LIBRARY_PATH", "")]);
        Front::of(Path::new("/driver"), &[]).put(&mut got);
        assert_eq!(got, environment(&[("LD_LIBRARY_PATH", "/driver")]), "no empty entry: it is the current directory");
        let mut got = environment(&[]);
        Front::default().put(&mut got);
        assert_eq!(got, environment(&[]));
    }

    #[test]
    fn caches_are_outside_of_the_bundle() {
        let got = complete(environment(&[("PWD", "/old")]), Path::new("/bundle"), Some(Path::new("/bundle")), None);
        let want = environment(&[
            ("HOME", "/bundle"),
            ("PATH", DEFAULT_PATH),
            ("PWD", "/bundle"),
            ("XDG_CACHE_HOME", "/.bundlerun/cache"),
            ("PIP_CACHE_DIR", "/.bundlerun/cache/pip"),
            ("HF_HOME", "/.bundlerun/cache/huggingface"),
            ("CUDA_CACHE_PATH", "/.bundlerun/cache/nv"),
            ("PYTHONUNBUFFERED", "1"),
        ]);
        assert_eq!(got, want);
    }

    #[test]
    fn who_has_no_name_gets_one_unless_the_environment_says_who_it_is() {
        let names = |vars, user| {
            let got = complete(environment(vars), Path::new("/bundle"), None, user);
            ["USER", "LOGNAME"].map(|name| got.get(OsStr::new(name)).map(|name| name.to_str().unwrap().to_owned()))
        };
        let both = |name: &str| [Some(name.to_owned()), Some(name.to_owned())];
        assert_eq!(names(&[], None), [None, None]);
        assert_eq!(names(&[], Some("user7")), both("user7"));
        assert_eq!(names(&[("USER", "ada")], Some("user7")), both("ada"));
        assert_eq!(names(&[("LOGNAME", "ada")], Some("user7")), both("ada"));
    }

    #[test]
    fn a_name_is_looked_for_by_the_number() {
        let dir = tempfile::tempdir().unwrap();
        let passwd = dir.path().join("passwd");
        assert_eq!(name_for(7, &passwd).as_deref(), Some("user7"), "an image without the file");
        std::fs::write(&passwd, "root:x:0:0:root:/root:/bin/sh\n# 7\nsys:x:17:7::/:\n\nuser:x:70:7\n").unwrap();
        for (user, want) in [(0, None), (17, None), (70, None), (7, Some("user7")), (1, Some("user1"))] {
            assert_eq!(name_for(user, &passwd).as_deref(), want, "{user}");
        }
    }

    #[test]
    fn caches_follow_the_cache_directory_of_the_image() {
        let got = complete(environment(&[("XDG_CACHE_HOME", "/c")]), Path::new("/bundle"), None, None);
        assert_eq!(got.get(OsStr::new("HF_HOME")).unwrap(), "/c/huggingface");
    }
}
