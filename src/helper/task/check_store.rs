//! The child that asks the store whether it would accept the output, while there is nothing to lose yet.

use crate::bundle::{self, ErrorKind};
use crate::contract::{NotSaved, Request, one_line};
use crate::helper::child::runtime;
use crate::helper::markers::mark_json;
use crate::helper::store_answer::{Answer, answer};
use crate::helper::task::login::access;
use crate::helper::task::save::failure;
use crate::names::files;
use crate::runner::Paths;
use std::time::Duration;

/// A store that has not answered by then counts as one that does not. The runner is kept waiting for this.
const ANSWER: Duration = Duration::from_secs(9);

/// Asks once, and leaves the answer. An error: it was not that the store accepts.
pub(in crate::helper) fn check_store(paths: &Paths, request: &Request) -> Result<(), String> {
    let save = request.save.as_ref().ok_or("there is no store to ask")?;
    let access = access(paths, request);
    let asked = runtime()?
        .block_on(async { tokio::time::timeout(ANSWER, bundle::check_store(&save.repository, &access)).await });
    let asked = asked.unwrap_or_else(|_| {
        let why = format!("{} gave no answer in {} s", save.repository, ANSWER.as_secs());
        Err(bundle::Error::unreachable(why))
    });
    let said = asked.as_ref().map_or_else(meaning, |()| Answer::Accepts);
    // Each answer takes some disk, which the command may have filled meanwhile.
    if answer(paths).as_ref() != Some(&said) {
        mark_json(&paths.bin, files::STORE, &said)?;
    }
    asked.map_err(|error| error.message)
}

fn meaning(error: &bundle::Error) -> Answer {
    let not_saved = NotSaved { failure: failure(error.kind), detail: one_line(&error.message) };
    match error.kind {
        ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::Tls => Answer::Refuses(not_saved),
        _ => Answer::Fails(not_saved),
    }
}
