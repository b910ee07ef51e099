//! `1d2h3m4s`: the notation of durations in a spec.
