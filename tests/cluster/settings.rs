//! Operators with other settings than those of the tests, each for namespaces of its own.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::{Space, eventually, operator_gone, operator_pods, scale_operator, set_replicas, watch_until};

/// The settings of the tests.
async fn usual(space: &Space) -> Value {
    let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), "bundlerun");
    let data = maps.get("bundle-operator").await.unwrap().data.unwrap();
    serde_saphyr::from_str(&data["settings.yaml"]).unwrap()
}

/// Starts an operator for a namespace, with the settings of the tests but for a change.
pub async fn changed(space: &Space, change: impl FnOnce(&mut Value)) -> OwnOperator {
    changed_in(space, &[], change).await
}

/// The same for a namespace and others beside it.
pub async fn changed_in(space: &Space, others: &[Space], change: impl FnOnce(&mut Value)) -> OwnOperator {
    let mut settings = usual(space).await;
    change(&mut settings);
    let own = OwnOperator::start(space, "", others, &settings.to_string(), json!([])).await;
    own.ready().await;
    own
}

/// The same by a test that runs alone: the installed operator goes, until the next test begins.
pub async fn changed_alone(space: &Space, change: impl FnOnce(&mut Value)) {
    scale_operator(&space.client, 0).await;
    changed(space, change).await;
}

/// Starts an operator for a namespace, with the settings of the tests and these environment variables.
pub async fn with_env(space: &Space, env: Value) -> OwnOperator {
    let own = OwnOperator::start(space, "", &[], &usual(space).await.to_string(), env).await;
    own.ready().await;
    own
}

/// An operator of a test: a Deployment like that of the installed one, which goes with the test's namespace.
pub struct OwnOperator {
    name: String,
    deployments: Api<Deployment>,
    client: Client,
}

impl OwnOperator {
    /// With the settings of the tests.
    pub async fn usual(space: &Space) -> Self {
        with_env(space, json!([])).await
    }

    /// For `space` and `others`. `suffix`: of its name, where a namespace has several.
    pub async fn start(space: &Space, suffix: &str, others: &[Space], settings: &str, env: Value) -> Self {
        let client = &space.client;
        let name = format!("{}{suffix}", space.name);
        let metadata = json!({"name": name, "ownerReferences": space.as_owner().await});
        let map = json!({"metadata": metadata, "data": {"settings.yaml": settings}});
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "bundlerun");
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();

        let deployments: Api<Deployment> = Api::namespaced(client.clone(), "bundlerun");
        let mut installed = serde_json::to_value(deployments.get("bundle-operator").await.unwrap()).unwrap();
        let mut template = installed["spec"]["template"].take();
        // Not the labels of the installed one: its Service and its Deployment choose by them.
        template["metadata"] = json!({"labels": {"operator-of": name}});
        let all: Vec<&str> = std::iter::once(space).chain(others).map(|space| space.name.as_str()).collect();
        let container = &mut template["spec"]["containers"][0];
        let variables = container["env"].as_array_mut().unwrap();
        variables.retain(|variable| variable["name"] != "NAMESPACES");
        variables.push(json!({"name": "NAMESPACES", "value": all.join(",")}));
        variables.extend(env.as_array().unwrap().iter().cloned());
        let volumes = template["spec"]["volumes"].as_array_mut().unwrap();
        let settings = volumes.iter_mut().find(|volume| volume["name"] == "settings").unwrap();
        settings["configMap"]["name"] = json!(name);
        let deployment = json!({"metadata": metadata, "spec": {"replicas": 1, "template": template,
            "selector": {"matchLabels": {"operator-of": name}}}});
        deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
        Self { name, deployments, client: client.clone() }
    }

    /// Waits until it is.
    pub async fn ready(&self) {
        let is_ready = |d: Option<&Deployment>| d.is_some_and(|d| d.status.as_ref().unwrap().ready_replicas == Some(1));
        watch_until(self.deployments.clone(), &self.name, "to be ready", is_ready).await;
    }

    /// Stops it, and waits until it is gone.
    pub async fn stop(&self) {
        set_replicas(&self.client, &self.name, 0).await;
        operator_gone(&self.client, &self.label()).await;
    }

    /// Starts it again, and waits until it is ready.
    pub async fn go_on(&self) {
        set_replicas(&self.client, &self.name, 1).await;
        self.ready().await;
    }

    /// Starts it again with a change of its settings, and waits until it is ready.
    pub async fn change(&self, change: impl FnOnce(&mut Value)) {
        self.stop().await;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "bundlerun");
        let data = maps.get(&self.name).await.unwrap().data.unwrap();
        let mut settings: Value = serde_saphyr::from_str(&data["settings.yaml"]).unwrap();
        change(&mut settings);
        let changed = Patch::Merge(json!({"data": {"settings.yaml": settings.to_string()}}));
        maps.patch(&self.name, &PatchParams::default(), &changed).await.unwrap();
        self.go_on().await;
    }

    /// Kills it, without grace.
    pub async fn kill(&self) {
        let its = ListParams::default().labels(&self.label());
        let at_once = DeleteParams::default().grace_period(0);
        operator_pods(&self.client).delete_collection(&at_once, &its).await.unwrap();
    }

    /// The label of its pods.
    fn label(&self) -> String {
        format!("operator-of={}", self.name)
    }

    /// Waits until its container has ended, and returns whether it is ready nevertheless, and its last words.
    pub async fn last_words(&self) -> (bool, String) {
        eventually("the operator's last words", async || {
            let its = ListParams::default().labels(&self.label());
            let pods = operator_pods(&self.client).list(&its).await.unwrap();
            let statuses = pods.items.into_iter().filter_map(|pod| pod.status?.container_statuses?.into_iter().next());
            let mut ended = statuses.filter_map(|container| {
                let states = [container.state, container.last_state];
                let terminated = states.into_iter().flatten().find_map(|state| state.terminated)?;
                Some((container.ready, terminated.message.unwrap_or_default()))
            });
            ended.next().ok_or("it has not ended")
        })
        .await
    }
}
