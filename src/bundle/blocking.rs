//! Work for threads: reading and writing files must not hold up transfers.

use super::{Error, ErrorKind};

/// Runs `work` in a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(ErrorKind::Local, format!("a thread ended: {error}"))),
    }
}
