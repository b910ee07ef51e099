//! What files tell of the GPUs: no library of the driver is loaded, because a static program cannot.

use super::super::glob;
use crate::contract::{GpuFacts, GpuModel};
use std::fs;
use std::path::Path;

/// Nobody has more devices in one container.
const DEVICES_MAX: usize = 128;

/// A GPU as the kernel module describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Card {
    model: Option<String>,
    uuid: Option<String>,
    minor: Option<u32>,
}

/// The container's GPUs, if anything is known of them. `visible` is `NVIDIA_VISIBLE_DEVICES`, `driver` the version by
/// the name of the linked library.
pub(super) fn read(root: &Path, visible: &str, driver: Option<String>) -> Option<GpuFacts> {
    let driver = kernel_module(root).or(driver);
    let cards: Vec<Card> = glob::find(root, "/proc/driver/nvidia/gpus/*/information")
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|text| card(&text))
        // Where /proc is not covered it shows all of the node's.
        .filter(|card| card.minor.is_none_or(|minor| root.join(format!("dev/nvidia{minor}")).exists()))
        .collect();
    let models = grouped(&devices(&cards, visible));
    (driver.is_some() || !models.is_empty()).then_some(GpuFacts { driver, models })
}

/// Model and id of each device: those the device plugin named, else those whose node is there.
fn devices(cards: &[Card], visible: &str) -> Vec<(Option<String>, String)> {
    let named: Vec<&str> =
        visible.split(',').filter(|id| id.starts_with("GPU-") || id.starts_with("MIG-")).take(DEVICES_MAX).collect();
    if named.is_empty() {
        let known = cards.iter().take(DEVICES_MAX);
        return known.filter_map(|card| Some((card.model.clone(), card.uuid.clone()?))).collect();
    }
    // A part of a device has an id of its own, and the model of the device.
    let only_model = match cards.split_first() {
        Some((first, rest)) if rest.iter().all(|card| card.model == first.model) => first.model.clone(),
        _ => None,
    };
    let model = |id: &str| {
        let card = cards.iter().find(|card| card.uuid.as_deref() == Some(id));
        card.and_then(|card| card.model.clone()).or_else(|| only_model.clone())
    };
    named.into_iter().map(|id| (model(id), id.to_owned())).collect()
}

fn grouped(devices: &[(Option<String>, String)]) -> Vec<GpuModel> {
    let mut models: Vec<GpuModel> = vec![];
    for (name, uuid) in devices {
        match models.iter_mut().find(|model| model.name == *name) {
            Some(model) => model.uuids.push(uuid.clone()),
            None => models.push(GpuModel { name: name.clone(), uuids: vec![uuid.clone()] }),
        }
    }
    models
}

/// `Model: NVIDIA H200`, `GPU UUID: GPU-...`, `Device Minor: 0`, with spaces and tabs. A device that nobody has used
/// since the node's start has question marks for an id.
fn card(text: &str) -> Card {
    let value = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.trim_start().strip_prefix(':'))?;
        Some(line.trim()).filter(|value| !value.is_empty() && !value.contains('?')).map(str::to_owned)
    };
    Card {
        model: value("Model"),
        uuid: value("GPU UUID"),
        minor: value("Device Minor").and_then(|minor| minor.parse().ok()),
    }
}

fn kernel_module(root: &Path) -> Option<String> {
    let version = |text: &str| {
        let is_version = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
    };
    let files = ["sys/module/nvidia/version", "proc/driver/nvidia/version"];
    files.iter().find_map(|file| version(&fs::read_to_string(root.join(file)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The layout of NVIDIA's open kernel module.
    fn information(model: &str, uuid: &str, minor: u32) -> String {
        format!(
            "Model: \t\t {model}\nIRQ:   \t\t 58\nGPU UUID: \t {uuid}\nVideo BIOS: \t ??.??.??.??.??\n\
             Bus Type: \t PCIe\nDMA Size: \t 52 bits\nBus Location: \t 0000:18:00.0\nDevice Minor: \t {minor}\n"
        )
    }

    fn node(cards: &[(&str, &str, u32)], present: &[u32]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (model, uuid, minor) in cards {
            let path = format!("proc/driver/nvidia/gpus/0000:{minor}:00.0/information");
            write(path, &information(model, uuid, *minor));
        }
        for minor in present {
            write(format!("dev/nvidia{minor}"), "");
        }
        let version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (x)\nGCC version:  gcc 12.3.0\n";
        write("proc/driver/nvidia/version".to_owned(), version);
        root
    }

    fn model(name: Option<&str>, uuids: &[&str]) -> GpuModel {
        GpuModel { name: name.map(str::to_owned), uuids: uuids.iter().map(|id| (*id).to_owned()).collect() }
    }

    const CARDS: [(&str, &str, u32); 3] =
        [("NVIDIA H200", "GPU-a", 0), ("NVIDIA H200", "GPU-b", 1), ("NVIDIA L4", "GPU-c", 2)];

    #[test]
    fn only_the_containers_devices_are_told() {
        let root = node(&CARDS, &[1, 2]);
        let facts = read(root.path(), "", None).unwrap();
        assert_eq!(facts.driver.as_deref(), Some("570.86.15"));
        assert_eq!(facts.models, [model(Some("NVIDIA H200"), &["GPU-b"]), model(Some("NVIDIA L4"), &["GPU-c"])]);
        let facts = read(root.path(), "GPU-c", None).unwrap();
        assert_eq!(facts.models, [model(Some("NVIDIA L4"), &["GPU-c"])]);
    }

    #[test]
    fn devices_of_one_model_are_told_together() {
        let root = node(&CARDS[..2], &[0, 1]);
        let facts = read(root.path(), "0,1", None).unwrap();
        assert_eq!(facts.models, [model(Some("NVIDIA H200"), &["GPU-a", "GPU-b"])]);
    }

    #[test]
    fn a_part_of_a_device_has_its_model() {
        let root = node(&CARDS[..1], &[0]);
        let facts = read(root.path(), "MIG-x,MIG-y", None).unwrap();
        assert_eq!(facts.models, [model(Some("NVIDIA H200"), &["MIG-x", "MIG-y"])]);
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(read(empty.path(), "void", None), None);
        assert_eq!(read(empty.path(), "GPU-a", None).unwrap().models, [model(None, &["GPU-a"])]);
        assert_eq!(read(empty.path(), "all", Some("550.54.14".into())).unwrap().driver.as_deref(), Some("550.54.14"));
        assert_eq!(card(&information("NVIDIA H200", "GPU-????????-????", 0)).uuid, None);
    }
}
