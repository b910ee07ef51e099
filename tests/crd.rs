//! The definition of `BundleRun`: the file is what the types say.

use std::{env, fs, path::Path};

use bundlerun::api::crd::crd_yaml;

#[test]
fn the_file_is_what_the_types_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/bundlerun.yaml");
    let yaml = crd_yaml().unwrap();
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &yaml).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        yaml,
        "run UPDATE=1 cargo test --test crd"
    );
}
