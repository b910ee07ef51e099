//! Every metric of the operator.

use super::{code_list, head, row};
use crate::operator::metrics;

pub(super) fn page() -> String {
    let mut page = "# Metrics\n\nWhat does the operator export at `/metrics`, port 8080, and what does each metric count? \
                    [Alerts and a dashboard](administration.md#watch-it) are made of these. A histogram is one line here: \
                    Prometheus adds `_bucket`, `_sum` and `_count`.\n\n"
        .to_owned();
    page += &head(["metric", "type", "what it counts", "labels"]);
    for metric in metrics() {
        let labels = code_list(metric.labels.iter().map(String::as_str));
        page += &row([&format!("`{}`", metric.name), &metric.kind, &metric.help, &labels]);
    }
    page
}
