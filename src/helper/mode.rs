//! The permission bits of files that the helper writes for the command. They have them once all is in them: a helper with
//! the user of the run can write only into files that their owner may write.

use std::fs::{Permissions, set_permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Of a file that nobody asked a mode for.
pub(super) const ORDINARY: u32 = 0o644;
/// Of a script that nobody asked a mode for.
const SCRIPT: u32 = 0o755;
/// Setuid, setgid and sticky are no permissions that an input can have.
const PERMISSIONS: u32 = 0o777;

/// What was asked for, else what a file that begins like this needs: a script names its interpreter in its first line.
pub(super) fn of(asked: Option<u32>, begin: &[u8]) -> u32 {
    asked.map_or(if begin.starts_with(b"#!") { SCRIPT } else { ORDINARY }, |mode| mode & PERMISSIONS)
}

/// Gives a file that all of its content is in what was asked for.
pub(super) fn set(place: &Path, asked: Option<u32>, begin: &[u8]) -> io::Result<()> {
    set_permissions(place, Permissions::from_mode(of(asked, begin)))
}

/// Lets us write into a file, which an earlier life of the helper may have finished.
pub(super) fn open_up(place: &Path) -> io::Result<()> {
    set_permissions(place, Permissions::from_mode(ORDINARY))
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_script_can_be_executed_unless_another_mode_was_asked_for() {
        for (asked, begin, mode) in [
            (None, "#!/bin/sh\n", 0o755),
            (None, "#!", 0o755),
            (None, "#", 0o644),
            (None, "", 0o644),
            (None, " #!/bin/sh", 0o644),
            (Some(0o600), "#!/bin/sh\n", 0o600),
            (Some(0o755), "print()", 0o755),
            (Some(0), "", 0),
            (Some(0o6755), "", 0o755),
        ] {
            assert_eq!(of(asked, begin.as_bytes()), mode, "{asked:?} {begin:?}");
        }
    }
}
