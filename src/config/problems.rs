//! Everything that is wrong with the settings, each with its place.

use super::ConfigError;
use super::fields::variable;
use crate::api::validate::{self, Problem};

/// What was found so far.
pub(super) struct Problems<'a> {
    path: &'a str,
    text: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    all: Vec<String>,
}

impl<'a> Problems<'a> {
    /// None yet, in the file `path` with this text, or in the environment.
    pub fn new(path: &'a str, text: &'a str, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { path, text, env, all: Vec::new() }
    }

    /// One more.
    pub fn push(&mut self, error: &ConfigError) {
        let place = self.place(error);
        let problem = format!("{place}: {error}");
        if !self.all.contains(&problem) {
            self.all.push(problem);
        }
    }

    /// The value, or one problem more.
    pub fn keep<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.push(&error)).ok()
    }

    /// Whether there is any.
    pub fn are_there(&self) -> bool {
        !self.all.is_empty()
    }

    /// All of them as one error.
    pub fn into_error(self) -> ConfigError {
        ConfigError::Problems(self.all)
    }

    /// The variable that a value came from, or else the file with its line.
    fn place(&self, error: &ConfigError) -> String {
        let field = match error {
            ConfigError::Invalid { field, .. } => *field,
            ConfigError::Unknown { field, .. } => field.as_str(),
            ConfigError::UnknownVariable { .. } => return "environment".to_owned(),
            _ => return self.path.to_owned(),
        };
        let variable = variable(field);
        if (self.env)(&variable).is_some_and(|value| !value.trim().is_empty()) {
            return variable;
        }
        let problem = Problem { path: field.to_owned(), message: String::new() };
        match validate::line(self.text, &problem) {
            Some(line) => format!("{}:{line}", self.path),
            None => self.path.to_owned(),
        }
    }
}
