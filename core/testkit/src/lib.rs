//! What the tests of several crates share.
//!
//! * [`naive`]: a slow, obvious reader of Iceberg tables, the oracle of every scan.
//! * [`FailingStore`]: fails, or loses the reply of, the request number N.
//! * [`LosingCatalog`]: commits and loses the reply.
//! * [`invariants`]: what must hold of a lake's files whatever happened.

mod failing_store;
pub mod invariants;
mod losing_catalog;
pub mod naive;

pub use failing_store::{FailingStore, Fault, FaultPlan};
pub use losing_catalog::{LosingCatalog, Loss};
