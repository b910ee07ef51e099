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

/// Enough to hash with: a child's memory is small, and stacks count.
const STACK: usize = 256 << 10;

/// Lets `work` give pieces to `take`, which runs in another thread, for what takes long itself. `work` may be so many
/// pieces ahead. All that was given is taken when this returns. Where no thread can be had, nothing is taken.
pub(super) fn beside<P: Send, T>(
    ahead: usize,
    take: impl FnMut(P) + Send,
    work: impl FnOnce(&mut dyn FnMut(P) -> bool) -> T,
) -> T {
    let (sender, pieces) = std::sync::mpsc::sync_channel::<P>(ahead);
    std::thread::scope(|scope| {
        let take_all = || pieces.into_iter().for_each(take);
        let _ = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, take_all);
        let result = work(&mut |piece| sender.send(piece).is_ok());
        drop(sender);
        result
    })
}
