//! How far the helper of a pod is: it has no access to the API server, so it is asked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::contract::{MESSAGE_MAX_BYTES, Progress};
use crate::names;

/// It is news, not state: who does not answer soon is asked another time.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The answer is one short line, and a termination message as JSON where that has no other way; what else may listen
/// there is not trusted.
const ANSWER_MAX_BYTES: usize = 1024 + 4 * MESSAGE_MAX_BYTES;

/// A reconcile waits no longer than this for an answer: mostly it comes in a few milliseconds, and a rack that is lost must not
/// hold up the runs of others.
const AT_ONCE: Duration = Duration::from_millis(100);
/// An answer that nobody took by then is too old, or of a pod that had the address before.
const FRESH: Duration = Duration::from_secs(10);

/// When an answer that was not there at once is there, if only that there is none.
pub(in crate::cluster) const LATER: Duration = Duration::from_millis(2_100);

/// Who asks helpers: beside the reconciles, so that silence costs them nothing.
pub(in crate::cluster) struct Helpers {
    client: reqwest::Client,
    /// By address.
    asked: Mutex<HashMap<String, Question>>,
}

/// It may have its answer.
struct Question {
    since: Instant,
    answer: JoinHandle<Option<Progress>>,
}

impl Helpers {
    pub(in crate::cluster) fn new() -> reqwest::Result<Self> {
        let builder = reqwest::Client::builder().timeout(TIMEOUT).no_proxy();
        let client = builder.redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { client, asked: Mutex::default() })
    }

    /// The helper's answer, or that it has given none that can be used; none: it is asked, and the answer is there [`LATER`].
    pub(in crate::cluster) async fn ask(&self, ip: &str) -> Option<Option<Progress>> {
        let mut question = self.take(ip).unwrap_or_else(|| {
            let (client, ip) = (self.client.clone(), ip.to_owned());
            Question { since: Instant::now(), answer: tokio::spawn(async move { ask(&client, &ip).await }) }
        });
        if let Ok(answer) = tokio::time::timeout(AT_ONCE, &mut question.answer).await {
            // A panic is no answer.
            return Some(answer.unwrap_or_default());
        }
        self.lock().insert(ip.to_owned(), question);
        None
    }

    fn take(&self, ip: &str) -> Option<Question> {
        let mut asked = self.lock();
        asked.retain(|_, question| question.since.elapsed() < FRESH);
        asked.remove(ip)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Question>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The helper's answer; none: it gave none that can be used, or cannot be reached.
async fn ask(client: &reqwest::Client, ip: &str) -> Option<Progress> {
    let address = SocketAddr::new(ip.parse::<IpAddr>().ok()?, names::PROGRESS_PORT);
    let mut answer = client.get(format!("http://{address}/progress")).send().await.ok()?.error_for_status().ok()?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        text.extend_from_slice(&chunk);
        if text.len() > ANSWER_MAX_BYTES {
            return None;
        }
    }
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::ProgressStage;

    #[tokio::test]
    async fn who_gives_no_answer_holds_up_nobody() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let helpers = Helpers::new().unwrap();
        let silent = "127.77.0.1";
        let _listens = std::net::TcpListener::bind((silent, names::PROGRESS_PORT)).unwrap();
        assert_eq!(helpers.ask(silent).await, None);
        assert_eq!(helpers.lock().len(), 1, "it is being asked");
        let answer = loop {
            if let Some(answer) = helpers.ask(silent).await {
                break answer;
            }
        };
        assert_eq!(answer, None);
        assert!(helpers.lock().is_empty(), "the answer was taken");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_took_is_not_another_pods() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let helpers = Helpers::new().unwrap();
        let since = Instant::now().checked_sub(FRESH).unwrap();
        let answer = tokio::spawn(async { Some(Progress::of(ProgressStage::Saving)) });
        helpers.lock().insert("10.0.0.1".to_owned(), Question { since, answer });
        assert!(helpers.take("10.0.0.1").is_none());
    }
}
