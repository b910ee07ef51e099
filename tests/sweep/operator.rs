//! Operators, each in a runtime of its own: when that ends, nothing of the process goes on.

use std::path::PathBuf;
use std::thread;

use bundlerun::cluster::Faults;
use bundlerun::operator::{self, Options};
use tokio::sync::oneshot;

/// Ways in which an operator comes to its end.
#[derive(Debug, PartialEq)]
pub enum End {
    /// A request was its last, by [`Faults`].
    Cut,
    /// It ended by itself, as when it cannot start.
    Failed(String),
    /// It was to.
    Stopped,
}

/// An operator that runs; it ends with this.
pub struct Operator {
    _stop: oneshot::Sender<()>,
    pub ended: oneshot::Receiver<End>,
}

impl Operator {
    /// Of one namespace.
    pub fn start(namespace: &str, settings: &str, faults: Faults) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let options = Options {
            settings: PathBuf::from(settings),
            listen: ([127, 0, 0, 1], 0).into(),
            helper_image: "operator:sweep".into(),
            instance: Some("sweep".into()),
            namespace: Some(namespace.into()),
            leader_election: false,
            namespaces: vec![namespace.into()],
            faults: faults.clone(),
        };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let how = runtime.block_on(async {
                tokio::select! {
                    ended = operator::run(options) => End::Failed(ended.map_or_else(|e| e.to_string(), |()| "no error".into())),
                    () = faults.cut() => End::Cut,
                    _ = stopped => End::Stopped,
                }
            });
            runtime.shutdown_background();
            let _ = end.send(how); // nobody may wait for it
        });
        Self { _stop: stop, ended }
    }
}

/// Keeps an operator running, as a Deployment does, for as long as this is polled: after a cut without another fault.
pub async fn keep(namespace: &str, settings: &str, mut faults: Faults) {
    loop {
        let mut operator = Operator::start(namespace, settings, faults.clone());
        match (&mut operator.ended).await {
            Ok(End::Cut) => faults = Faults::default(),
            // It may be started again and again until what keeps it from starting is over.
            _ => tokio::time::sleep(std::time::Duration::from_millis(500)).await,
        }
    }
}
