//! What the tests see of the cluster: every version of every run and pod, by namespace, in the order of one watch each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bundlerun::api::BundleRun;
use bundlerun::names;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use kube_runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::kubelet;

/// Who waits this long has failed; `PATIENCE_SECONDS` says another time.
fn patience() -> Duration {
    let seconds = std::env::var("PATIENCE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(180))
}

/// Something that was seen, or done in the place of a kubelet.
#[derive(Clone, Debug)]
pub enum Seen {
    Run {
        name: String,
        uid: String,
        status: Value,
    },
    RunGone,
    Pod {
        name: String,
        uid: String,
        run_uid: String,
        lives: bool,
        is_deleting: bool,
    },
    PodGone {
        uid: String,
        run_uid: String,
    },
    /// The command of an attempt began.
    Began {
        run_uid: String,
        attempt: u32,
    },
    /// The helper reported, and the runner with it.
    Reported {
        run_uid: String,
        attempt: u32,
        exit_code: i32,
    },
}

#[derive(Default)]
pub struct State {
    pub runs: BTreeMap<String, BundleRun>,
    pub pods: BTreeMap<String, Pod>,
    pub history: Vec<Seen>,
    /// What the kubelet has begun to do, by the uid of the pod.
    pub done: HashMap<String, Vec<kubelet::Action>>,
}

impl State {
    pub fn status(&self, run: &str) -> Value {
        self.runs.get(run).and_then(|run| serde_json::to_value(&run.status).ok()).unwrap_or_default()
    }

    pub fn phase(&self, run: &str) -> String {
        self.status(run)["phase"].as_str().unwrap_or_default().to_owned()
    }

    pub fn is_over(&self, run: &str) -> bool {
        is_terminal(&self.phase(run))
    }

    /// The finalizer is on no pod.
    pub fn are_pods_released(&self) -> bool {
        self.pods.values().all(|pod| pod.metadata.finalizers.iter().flatten().next().is_none())
    }
}

pub fn is_terminal(phase: &str) -> bool {
    ["Succeeded", "Failed", "Stopped"].contains(&phase)
}

/// A namespace of one case.
pub struct Space {
    pub client: Client,
    pub name: String,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Space {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn runs(&self) -> Api<BundleRun> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, is_met: impl Fn(&State) -> bool) -> Result<(), String> {
        let mut changed = self.changed.subscribe();
        let met = tokio::time::timeout(patience(), async {
            while !is_met(&self.state()) {
                let _ = changed.changed().await; // the sender is ours
            }
        });
        met.await.map_err(|_| {
            let state = self.state();
            let runs: Vec<_> = state.runs.keys().map(|run| format!("{run}: {}", state.status(run))).collect();
            let pods: Vec<_> = state.pods.iter().map(|(name, pod)| (name, kubelet::phase(pod))).collect();
            format!("not met in time: {what}; {}; pods {pods:?}", runs.join("; "))
        })
    }
}

/// All namespaces, followed by two watches.
pub struct World {
    pub client: Client,
    spaces: Mutex<HashMap<String, Arc<Space>>>,
}

impl World {
    pub async fn new() -> Arc<Self> {
        let client = Client::try_default().await.unwrap();
        let world = Arc::new(Self { client, spaces: Mutex::default() });
        tokio::spawn(Arc::clone(&world).follow_runs());
        tokio::spawn(Arc::clone(&world).follow_pods());
        world
    }

    /// A new namespace in which pods can be made.
    pub async fn space(&self, prefix: &str) -> Result<Arc<Space>, String> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let object = serde_json::from_value(json!({"metadata": {"generateName": format!("{prefix}-")}})).unwrap();
        let mut made = namespaces.create(&PostParams::default(), &object).await;
        for _ in 0..20 {
            if made.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            made = namespaces.create(&PostParams::default(), &object).await;
        }
        let made = made.map_err(|e| format!("create a namespace: {e}"))?;
        let name = made.name_any();
        let space = Space {
            client: self.client.clone(),
            name: name.clone(),
            state: Mutex::default(),
            changed: watch::Sender::default(),
        };
        let space = Arc::new(space);
        self.spaces().insert(name.clone(), Arc::clone(&space));
        // Made here and not awaited from its controller, which has hundreds to make.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &name);
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        match accounts.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            made => drop(made.map_err(|e| e.to_string())?),
        }
        Ok(space)
    }

    fn spaces(&self) -> MutexGuard<'_, HashMap<String, Arc<Space>>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, object: &impl ResourceExt) -> Option<Arc<Space>> {
        self.spaces().get(&object.namespace()?).cloned()
    }

    async fn follow_runs(self: Arc<Self>) {
        let api: Api<BundleRun> = Api::all(self.client.clone());
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            let (run, is_gone) = match event {
                Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run)) => (run, false),
                Ok(watcher::Event::Delete(run)) => (run, true),
                _ => continue,
            };
            let Some(space) = self.of(&run) else { continue };
            let (name, uid) = (run.name_any(), run.uid().unwrap_or_default());
            {
                let mut state = space.state();
                if is_gone {
                    state.runs.remove(&name);
                    state.history.push(Seen::RunGone);
                } else {
                    let status = serde_json::to_value(&run.status).unwrap_or_default();
                    state.runs.insert(name.clone(), run);
                    state.history.push(Seen::Run { name, uid, status });
                }
            }
            kubelet::look(&space);
            space.changed.send_replace(());
        }
    }

    async fn follow_pods(self: Arc<Self>) {
        let api: Api<Pod> = Api::all(self.client.clone());
        let ours = watcher::Config::default().labels(names::RUN_UID_LABEL);
        let mut events = std::pin::pin!(watcher(api, ours).default_backoff());
        while let Some(event) = events.next().await {
            let (pod, is_gone) = match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => (pod, false),
                Ok(watcher::Event::Delete(pod)) => (pod, true),
                _ => continue,
            };
            let Some(space) = self.of(&pod) else { continue };
            let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
            let run_uid = pod.labels().get(names::RUN_UID_LABEL).cloned().unwrap_or_default();
            {
                let mut state = space.state();
                if is_gone {
                    state.pods.remove(&name);
                    state.history.push(Seen::PodGone { uid, run_uid });
                } else {
                    let is_deleting = pod.metadata.deletion_timestamp.is_some();
                    let lives = !["Succeeded", "Failed"].contains(&kubelet::phase(&pod).as_str());
                    state.pods.insert(name.clone(), pod);
                    state.history.push(Seen::Pod { name, uid, run_uid, lives, is_deleting });
                }
            }
            kubelet::look(&space);
            space.changed.send_replace(());
        }
    }
}
