//! Images made by hand: of layers that no program would make.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Pushes a blob and returns its digest and size.
pub(crate) async fn put_blob(host: &str, repository: &str, blob: &[u8]) -> Value {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let digest = sha256(blob);
    let started = http.post(format!("http://{host}/v2/{repository}/blobs/uploads/")).send().await.unwrap();
    let location = started.headers().get("location").unwrap().to_str().unwrap();
    let mut url = started.url().join(location).unwrap();
    url.query_pairs_mut().append_pair("digest", &digest);
    let put = http.put(url).body(blob.to_vec()).send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.status());
    json!({"digest": digest, "size": blob.len()})
}

/// Pushes to a registry an image of these layers, as they are, and returns its reference by digest.
pub(crate) async fn push_image(host: &str, name: &str, layers: &[Vec<u8>]) -> String {
    let mut descriptors = vec![];
    for layer in layers {
        let mut descriptor = put_blob(host, name, layer).await;
        descriptor["mediaType"] = json!(TAR);
        descriptors.push(descriptor);
    }
    let mut config = put_blob(host, name, b"{}").await;
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": descriptors,
    });
    push_manifest(host, name, &manifest, "application/vnd.oci.image.manifest.v1+json").await
}

pub(crate) async fn push_manifest(host: &str, name: &str, manifest: &Value, media_type: &str) -> String {
    let body = manifest.to_string();
    let digest = sha256(body.as_bytes());
    let url = format!("http://{host}/v2/{name}/manifests/{digest}");
    let request = reqwest::Client::new().put(url).header("content-type", media_type).body(body);
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap());
    format!("{host}/{name}@{digest}")
}
