//! Every metric of the operator.

use std::fmt::Write;

use crate::operator::metrics;

pub(super) fn page() -> String {
    let mut page = "# Metrics\n\nWhat the operator exports at `/metrics`, port 8080; [alerts and a dashboard](administration.md#watch-it) \
                    are made of these. A histogram is one line here: Prometheus adds `_bucket`, `_sum` and `_count`.\n\n\
                    | metric | type | what it counts | labels |\n|---|---|---|---|\n"
        .to_owned();
    for metric in metrics() {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", metric.name, metric.kind, metric.help, labels.join(", "));
    }
    page
}
