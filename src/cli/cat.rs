//! `cat`: one file of a saved output.

use clap::Args;

use crate::bundle;

use super::failure::Failure;
use super::session::Session;
use super::sink::{Sink, Stream};
use super::store::{self, Saved, StoreOptions};

#[derive(Debug, Args)]
pub(super) struct Cat {
    /// A run, RUN@ATTEMPT, or a bundle as REPOSITORY@sha256:...
    target: String,
    /// File in it
    path: String,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn cat(session: &Session, args: &Cat) -> Result<(), Failure> {
    let Saved { reference, access, .. } = store::find(session, &args.target, &args.store).await?;
    let sink = Sink::new(session.out, Stream::Out);
    let mut sink = bundle::read_file(&reference, &args.path, &access, sink).await?;
    Ok(sink.finish()?)
}
