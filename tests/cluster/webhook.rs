//! An admission webhook that does as it is told: the API server asks it about the pods of one namespace.

use std::io::{Error, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::admission::try_to_create;
use crate::common::{Space, eventually};
use crate::node;
use crate::registry::make_certificate;

/// As messages name it.
pub const NAME: &str = "pods.webhook.test";

/// What the webhook does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Allows,
    /// It says no, with this HTTP status and this message for the user.
    Denies(u16, &'static str),
    /// It fails: the status of its own answer.
    Fails(u16),
    /// The connection ends without a word.
    HangsUp,
    /// It says nothing for as long as anybody listens.
    Silent,
}

/// A webhook and the server that is asked, which ends with the test.
pub struct Webhook {
    configurations: Api<ValidatingWebhookConfiguration>,
    name: String,
    told: Arc<Mutex<Told>>,
}

/// What it is to do, and when it was asked since.
struct Told {
    answer: Answer,
    asked: Vec<Timestamp>,
}

impl Webhook {
    /// It is asked about every pod that is made in the namespace; without its answer there is none. Waits until it works.
    pub async fn start(space: &Space, answer: Answer) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        make_certificate(certificates.path(), "webhook", &node::link_address());
        let at = |name: &str| certificates.path().join(format!("webhook.{name}"));
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(at("pem")).unwrap()],
                PrivateKeyDer::from_pem_file(at("key")).unwrap(),
            );
        let listener = TcpListener::bind((node::link_address(), 0)).unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let told = Arc::new(Mutex::new(Told { answer: Answer::Fails(500), asked: vec![] }));
        let (tls, asked) = (Arc::new(tls.unwrap()), told.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (tls, asked) = (tls.clone(), asked.clone());
                // Who hangs up while it is answered is none of ours.
                std::thread::spawn(move || serve(connection, tls, &asked).ok());
            }
        });
        let name = format!("webhook-{}", space.name);
        let pods = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
        let webhook = json!({
            "name": NAME, "rules": [pods], "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail", "timeoutSeconds": 30,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}},
            "clientConfig": {"url": url, "caBundle": STANDARD.encode(std::fs::read(at("ca")).unwrap())}});
        let configuration = json!({"metadata": {"name": name}, "webhooks": [webhook]});
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(space.client.clone());
        configurations.create(&PostParams::default(), &serde_json::from_value(configuration).unwrap()).await.unwrap();
        eventually("the webhook to be asked", async || match try_to_create(space).await {
            Err(error) if error.contains(NAME) => Ok(()),
            other => Err(other),
        })
        .await;
        let webhook = Self { configurations, name, told };
        webhook.answers(answer);
        webhook
    }

    /// From now on.
    pub fn answers(&self, answer: Answer) {
        *self.told.lock().unwrap() = Told { answer, asked: vec![] };
    }

    /// How often it was asked with this answer, before that time.
    pub fn asked_before(&self, time: Timestamp) -> usize {
        self.told.lock().unwrap().asked.iter().filter(|asked| **asked < time).count()
    }

    pub async fn end(self) {
        self.configurations.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }
}

/// Answers one request.
fn serve(connection: TcpStream, tls: Arc<ServerConfig>, told: &Mutex<Told>) -> Result<()> {
    let mut connection = StreamOwned::new(ServerConnection::new(tls).map_err(Error::other)?, connection);
    let review = body(&mut connection)?;
    let answer = {
        let mut told = told.lock().unwrap();
        told.asked.push(Timestamp::now());
        told.answer
    };
    let mut response = json!({"uid": review["request"]["uid"], "allowed": answer == Answer::Allows});
    let status = match answer {
        Answer::Allows => 200,
        Answer::Denies(code, message) => {
            response["status"] = json!({"code": code, "message": message});
            200
        }
        Answer::Fails(status) => status,
        Answer::HangsUp => return Ok(()),
        // Until the other side ends it.
        Answer::Silent => return connection.read(&mut [0]).map(drop),
    };
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    let body = if status == 200 { review.to_string() } else { "out of order".to_owned() };
    let head = format!("HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nConnection: close\r\n");
    write!(connection, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
    connection.conn.send_close_notify();
    connection.flush()
}

/// Reads a request to its end.
fn body(connection: &mut impl Read) -> Result<Value> {
    let mut request = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let n = connection.read(&mut piece)?;
        request.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n").filter(|_| n > 0) else {
            if n > 0 {
                continue;
            }
            return Err(Error::other("it ended in the middle"));
        };
        let head = head.to_lowercase();
        let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return serde_json::from_str(body).map_err(Error::other);
        }
    }
}
