//! `version`: of this program, of the cluster, and whether its definition of runs is the one that this program knows.

use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use serde_json::json;

use crate::api::skew;
use crate::names;

use super::failure::{Asked, Failure};
use super::record::Record;
use super::session::{Answer, Session};

const CLIENT: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Args)]
pub(super) struct Version {
    #[command(flatten)]
    answer: Answer,
}

pub(super) async fn version(session: &Session, args: &Version) -> Result<(), Failure> {
    let format = args.answer.output;
    let found = cluster(session).await;
    let (server, definition) = match &found {
        Ok((server, definition)) => (Some(server.as_str()), Some(definition.as_str())),
        Err(_) => (None, None),
    };
    if format.is_for_people() {
        session.out.print(&text(server, definition))?;
    } else {
        let versions = json!({"client": CLIENT, "api": names::VERSION, "kubernetes": server, "definition": definition});
        session.out.document(format, &versions)?;
    }
    // What could be found out was.
    found.map(drop)
}

fn text(server: Option<&str>, definition: Option<&str>) -> String {
    let mut record = Record::default();
    record.line("Client", CLIENT).line("API", format!("{}/{}", names::GROUP, names::VERSION));
    record.maybe("Kubernetes", server).maybe("Definition", definition);
    record.text()
}

async fn cluster(session: &Session) -> Result<(String, String), Failure> {
    let connection = session.connect().await?;
    let asked = Asked { verb: "get", resource: "version", name: None, namespace: None };
    let server = connection.client.apiserver_version().await.map_err(|error| asked.failed(&error))?;
    let definitions: Api<CustomResourceDefinition> = Api::all(connection.client.clone());
    let definition = match definitions.get_opt(names::DEFINITION).await {
        Ok(Some(installed)) => compared(&installed),
        Ok(None) => "not installed: this cluster has no BundleRuns".to_owned(),
        // Definitions are of the whole cluster: not everybody may read them.
        Err(kube::Error::Api(status)) if status.is_forbidden() => "you may not read it".to_owned(),
        Err(error) => {
            let asked = Asked { resource: "customresourcedefinitions", ..asked };
            return Err(asked.failed(&error));
        }
    };
    Ok((server.git_version, definition))
}

fn compared(installed: &CustomResourceDefinition) -> String {
    match skew::skew(installed) {
        Err(error) => format!("cannot be compared: {error}"),
        Ok(skew) if !skew.missing.is_empty() => {
            format!("older than this program, it lacks {}", skew.missing.join(", "))
        }
        Ok(skew) if skew.differs => "of another version than this program".to_owned(),
        Ok(_) => "the same as this program's".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_compared() {
        let mut definition = crate::api::crd::crd().unwrap();
        assert_eq!(compared(&definition), "the same as this program's");
        definition.spec.versions.clear();
        assert_eq!(compared(&definition), "older than this program, it lacks v1alpha1");
    }

    #[test]
    fn what_could_not_be_asked_is_left_out() {
        assert_eq!(text(None, None), format!("Client:      {CLIENT}\nAPI:         bundlerun.dev/v1alpha1\n"));
    }
}
