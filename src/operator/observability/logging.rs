//! What the operator tells of its work: log lines, and traces for who wants them.

use std::env;
use std::io::{self, Write};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::contract::printable;
use crate::names;
use crate::operator::Failure;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Sends the spans that are left when it goes.
#[must_use]
pub struct Log(Option<SdkTracerProvider>);

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Writes log lines to standard error: what `RUST_LOG` says, or else all but details.
///
/// Spans go to an OpenTelemetry collector, by OTLP over HTTP, where `OTEL_EXPORTER_OTLP_ENDPOINT` or
/// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names one; the other variables of that specification count too.
///
/// # Errors
/// When these variables make no sense.
pub fn start_log(format: LogFormat) -> Result<Log, Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    let lines = match format {
        LogFormat::Json => {
            fmt::layer().with_writer(io::stderr).json().flatten_event(true).with_span_list(false).boxed()
        }
        LogFormat::Text => text(io::stderr).boxed(),
    };
    let traces = traces()?;
    let spans = traces.as_ref().map(|traces| {
        // Ours alone: what sends the spans must not make more.
        let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO);
        tracing_opentelemetry::layer().with_tracer(traces.tracer(names::OPERATOR)).with_filter(ours)
    });
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).init();
    Ok(Log(traces))
}

/// For people, who read the words of others in it: those of the API server, of registries and of users.
fn text<S, W>(writer: impl Fn() -> W + Send + Sync + 'static) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    fmt::layer().with_writer(move || LineEach(writer())).with_ansi(false)
}

/// Takes an event at once, as the layer above writes it, and makes one line of it, whatever is in it.
struct LineEach<W>(W);

impl<W: Write> Write for LineEach<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let words = String::from_utf8_lossy(event);
        let line = printable(words.strip_suffix('\n').unwrap_or(&words)) + "\n";
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn traces() -> Result<Option<SdkTracerProvider>, Failure> {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    if !["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"].into_iter().any(is_set) {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().build().map_err(|error| format!("traces: {error}"))?;
    let mut resource = Resource::builder();
    if !is_set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(names::OPERATOR);
    }
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info_span, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_words_of_others_forge_no_line_of_the_log() {
        let written = Written::default();
        let to = written.clone();
        let forged = "no such image\n2026-11-27T09:00:00.000000Z  INFO bundlerun: all is well\r\u{1b}[2J\u{9b}1m\u{85}";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(text(move || to.clone())), || {
            let _span = info_span!("run", name = forged).entered();
            warn!(error = %forged, debug = ?forged, "{forged}");
            warn!("the next line");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains(" WARN ") && lines[0].contains(r"no such image\n2026"), "{text}");
        assert!(lines[1].ends_with("the next line"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}
