//! The controller service: observe, plan, carry out, publish.
