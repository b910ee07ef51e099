//! The real runner with GPUs: the host's driver in front, the preflight, and the facts in the record.

#![allow(clippy::unwrap_used)] // in functions that tests share

mod sandbox;

use std::fs;
use std::os::unix::fs::symlink;

use bundlerun::contract::{Cause, Command, DeviceCount, GpuFacts, GpuModel, GpuRequest, HostDriver, Preflight};
use sandbox::{SHELLS, Sandbox, sh};

/// One GPU whose driver is a folder of the host's.
fn request() -> GpuRequest {
    let driver = HostDriver {
        mount_path: "/usr/local/nvidia".into(),
        library_dirs: vec!["/usr/local/nvidia/lib64".into()],
        bin_dirs: vec!["/usr/local/nvidia/bin".into()],
        library_files: vec![],
    };
    let preflight = Preflight {
        devices: vec!["/dev/nvidia[0-9]*".into()],
        count: DeviceCount::Exact,
        libraries: vec!["libcuda.so.1".into()],
    };
    GpuRequest { count: 1, preflight, driver: Some(driver) }
}

/// A container with one device, and a host's driver folder that also holds what no image can use.
fn sandbox(shell: &str, request: GpuRequest) -> Sandbox {
    let sandbox = Sandbox::with_shell(shell).gpus(request);
    let library = sandbox.root().join("usr/local/nvidia/lib64");
    fs::create_dir_all(&library).unwrap();
    fs::create_dir_all(sandbox.root().join("dev")).unwrap();
    // A device that anyone may make.
    symlink("/dev/null", sandbox.root().join("dev/nvidia0")).unwrap();
    fs::write(library.join("libcuda.so.550.54.14"), "the host's").unwrap();
    symlink("libcuda.so.550.54.14", library.join("libcuda.so.1")).unwrap();
    for wrong in ["libc.so.6", "libtinfo.so.6", "libdl.so.2"] {
        fs::write(library.join(wrong), "no library at all").unwrap();
    }
    sandbox
}

#[test]
fn the_drivers_directories_come_first_before_and_after_bashrc() {
    let report = "echo \"$1$LD_LIBRARY_PATH|$PATH\" | sed \"s,$ROOT,,g\"";
    for shell in SHELLS {
        for (bashrc, libraries) in [
            ("", "DRIVER"),
            ("LD_LIBRARY_PATH=/opt/lib", "DRIVER:/opt/lib"),
            ("export LD_LIBRARY_PATH=/opt/lib:$LD_LIBRARY_PATH PATH=/opt/bin:$PATH", "DRIVER:/opt/lib:DRIVER"),
            ("unset LD_LIBRARY_PATH", "DRIVER"),
            ("export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/opt/lib", "DRIVER:/opt/lib"),
            ("export LD_LIBRARY_PATH=/.bundlerun/record/driver2; set -eu", "DRIVER:/.bundlerun/record/driver2"),
        ] {
            let sandbox = sandbox(shell, request());
            let root = sandbox.root().to_str().unwrap().to_owned();
            let sandbox = sandbox.env("ROOT", &root);
            symlink("/usr/bin/sed", sandbox.root().join("usr/bin/sed")).unwrap();
            sandbox.bashrc(&format!("{}; {bashrc}\n", report.replace("$1", "bashrc ")));
            let run = sandbox.run(&sh(&report.replace("$1", "command ")));
            let (out, driver) = (run.stdout(), "/.bundlerun/record/driver");
            let mut lines = out.lines().filter(|line| line.starts_with("command ")).map(|line| line.split_at(8).1);
            let (seen, path) = lines.next().unwrap_or_else(|| panic!("{shell}: {run:?}")).split_once('|').unwrap();
            assert_eq!(seen, libraries.replace("DRIVER", driver), "{shell}: {bashrc}");
            assert!(path.starts_with("/usr/local/nvidia/bin:"), "{shell}: {bashrc}: {path}");
            // .bashrc wrote to the log of the container, and had the driver, too.
            assert!(out.starts_with(&format!("bashrc {driver}|/usr/local/nvidia/bin:/usr/bin\n")), "{shell}: {out}");
        }
    }
}

#[test]
fn a_wrong_libc_of_the_host_does_no_harm() {
    for shell in ["bash", "dash"] {
        let sandbox = sandbox(shell, request());
        let links = sandbox.paths.record.join("driver");
        let run = sandbox.run(&sh("ls ${LD_LIBRARY_PATH%%:*}; cat ${LD_LIBRARY_PATH%%:*}/libcuda.so.1"));
        assert_eq!((run.code, run.stdout().as_str()), (0, "libcuda.so.1\nlibcuda.so.550.54.14\nthe host's"), "{run:?}");
        assert!(links.join("libcuda.so.1").is_symlink());

        // The same folder as a whole breaks the shell: the test above can fail.
        let whole = sandbox.root().join("usr/local/nvidia/lib64");
        let broken = std::process::Command::new(shell).args(["-c", "true"]).env("LD_LIBRARY_PATH", whole).status();
        assert!(!broken.unwrap().success(), "{shell}");
    }
}

#[test]
fn a_program_without_a_shell_has_the_driver_too() {
    let sandbox = sandbox("none", request()).env("LD_LIBRARY_PATH", "/opt/lib");
    let run = sandbox.run(&Command::Argv(vec!["env".into()]));
    let root = sandbox.root().to_str().unwrap().to_owned();
    let out = run.stdout().replace(&root, "");
    assert!(out.contains("\nLD_LIBRARY_PATH=/.bundlerun/record/driver:/opt/lib\n"), "{out}");
    assert!(out.contains("\nPATH=/usr/local/nvidia/bin:/usr/bin\n"), "{out}");
}

#[test]
fn nobody_can_link_the_driver_too() {
    let run = sandbox("bash", request()).run_by_nobody().run(&sh("cat ${LD_LIBRARY_PATH%%:*}/libcuda.so.1"));
    assert_eq!((run.code, run.stdout().as_str()), (0, "the host's"), "{run:?}");
}

#[test]
fn without_its_gpus_a_command_does_not_start() {
    let request = |edit: &dyn Fn(&mut GpuRequest)| {
        let mut request = request();
        edit(&mut request);
        request
    };
    let no_dirs = |r: &mut GpuRequest| r.driver.as_mut().unwrap().library_dirs = vec!["/usr/local/none".into()];
    for (request, want) in [
        (request(&|r| r.count = 2), "1 of 2 devices /dev/nvidia[0-9]* are in the container"),
        (request(&|r| r.preflight.devices = vec!["/dev/kfd".into()]), "0 of 1 devices /dev/kfd"),
        (request(&|r| r.preflight.libraries.push("libnvidia-none.so".into())), "no library libnvidia-none.so"),
        (request(&no_dirs), "has no library in /usr/local/none"),
    ] {
        let run = sandbox("bash", request).run(&sh("echo ran"));
        assert_eq!((run.code, run.record.cause), (125, Some(Cause::GpuUnavailable)), "{want}");
        assert!(run.record.detail.contains(want), "{want}: {}", run.record.detail);
        assert_eq!((run.stdout().as_str(), run.record.started_at_ms), ("", None));
    }
}

#[test]
fn the_record_has_the_devices_and_the_driver() {
    let run = sandbox("bash", request()).env("NVIDIA_VISIBLE_DEVICES", "GPU-a,GPU-b").run(&sh("exit 3"));
    let models = vec![GpuModel { name: None, uuids: vec!["GPU-a".into(), "GPU-b".into()] }];
    assert_eq!(run.record.gpus, Some(GpuFacts { driver: Some("550.54.14".into()), models }));
    assert_eq!(run.record.exit_code, Some(3));
    let run = Sandbox::new().env("NVIDIA_VISIBLE_DEVICES", "GPU-a").run(&sh("true"));
    assert_eq!(run.record.gpus, None, "a run without GPUs has none");
}
