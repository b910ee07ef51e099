//! What the store said when it was asked whether it would accept the output: left by a child for the main process.

use crate::contract::{NotSaved, SaveFailure};
use crate::helper::markers::read_json;
use crate::names::files;
use crate::runner::Paths;
use serde::{Deserialize, Serialize};

/// What the store said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::helper) enum Answer {
    /// It accepts uploads.
    Accepts,
    /// It does not, and will not unless somebody changes something: the login, the repository, the certificate.
    Refuses(NotSaved),
    /// It does not answer, or with an error of its own, which may pass.
    Fails(NotSaved),
}

/// The last answer; none: there was none yet.
pub(in crate::helper) fn answer(paths: &Paths) -> Option<Answer> {
    read_json(&paths.bin, files::STORE)
}

impl Answer {
    /// What is wrong with the store; none: nothing.
    pub(in crate::helper) fn trouble(self) -> Option<NotSaved> {
        match self {
            Answer::Accepts => None,
            Answer::Refuses(not_saved) | Answer::Fails(not_saved) => Some(not_saved),
        }
    }

    /// A store that gave no answer at all.
    pub(in crate::helper) fn silent() -> Self {
        let detail = "it was not found out in time whether the store accepts the output".to_owned();
        Answer::Fails(NotSaved { failure: SaveFailure::StoreUnreachable, detail })
    }
}
