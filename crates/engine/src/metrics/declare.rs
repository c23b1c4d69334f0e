//! How a metric comes to be: made, registered, and filled with every series that it may ever have.

use prometheus::core::Collector;
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// The names of a metric's labels, and every row of values that they take together. A closed set, so that
/// each series is there from the start and `rate()` works from the first event on.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    names: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Labels {
    /// One label.
    pub(crate) fn one<V: Into<String>>(name: &'static str, values: impl IntoIterator<Item = V>) -> Self {
        Self::rows([name], values.into_iter().map(|value| [value]))
    }

    /// Labels of which not every combination exists.
    pub(crate) fn rows<V: Into<String>, const N: usize>(
        names: [&'static str; N],
        rows: impl IntoIterator<Item = [V; N]>,
    ) -> Self {
        let rows = rows.into_iter().map(|row| row.into_iter().map(Into::into).collect());
        Self { names: names.to_vec(), rows: rows.collect() }
    }

    /// Every combination of these labels with those.
    pub(crate) fn by(&self, other: &Self) -> Self {
        let rows = self.rows.iter().flat_map(|row| other.rows.iter().map(|more| [&row[..], more].concat()));
        Self { names: [&self.names[..], &other.names].concat(), rows: rows.collect() }
    }

    fn each(&self) -> impl Iterator<Item = Vec<&str>> {
        self.rows.iter().map(|row| row.iter().map(String::as_str).collect())
    }
}

/// Declares metrics in one registry. Fails only where it has one of that name already.
pub(crate) struct Declare<'a>(pub(crate) &'a Registry);

impl Declare<'_> {
    pub(crate) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.registered(IntCounter::new(name, help)?)
    }

    pub(crate) fn counters(&self, name: &str, help: &str, labels: &Labels) -> Result<IntCounterVec, Error> {
        let counters = self.registered(IntCounterVec::new(Opts::new(name, help), &labels.names)?)?;
        for row in labels.each() {
            counters.get_metric_with_label_values(&row)?;
        }
        Ok(counters)
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.registered(IntGauge::new(name, help)?)
    }

    pub(crate) fn gauges(&self, name: &str, help: &str, labels: &Labels) -> Result<IntGaugeVec, Error> {
        let gauges = self.registered(IntGaugeVec::new(Opts::new(name, help), &labels.names)?)?;
        for row in labels.each() {
            gauges.get_metric_with_label_values(&row)?;
        }
        Ok(gauges)
    }

    pub(crate) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered(Histogram::with_opts(opts)?)
    }

    pub(crate) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &Labels,
    ) -> Result<HistogramVec, Error> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = self.registered(HistogramVec::new(opts, &labels.names)?)?;
        for row in labels.each() {
            histograms.get_metric_with_label_values(&row)?;
        }
        Ok(histograms)
    }

    fn registered<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
