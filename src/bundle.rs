//! The bundle: what a tenant wants delivered, and its YAML grammar (annotations, `hushpod.yaml`, CSI attributes).

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::parse_error::{ParseError, rule};
use crate::steps;

mod file_mode;
mod item;
pub mod template;
mod volume_path;
mod yaml;

pub use self::file_mode::FileMode;
pub use self::item::{BundleError, Decode, Format, From, Item, MAX_REFERENCE_BYTES, Target, parse_reference};
pub use self::template::MAX_TEMPLATE_BYTES;
pub use self::volume_path::VolumePath;
pub use self::yaml::{
    MAX_DOCUMENTS, MAX_YAML_NODES, Places, TextPosition, parse_annotation, parse_yaml, parse_yaml_documents,
};

/// Most files and directories of a bundle: a plan of as many is near its limit.
const MAX_ITEMS: usize = 1000;

/// Everything a pod asks for, in the order it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Files and directories; no two of them share a path.
    pub items: Vec<Item>,
    /// Where they are.
    taken: BTreeSet<Spot>,
}

/// A target, by its path: what lies below a directory follows right behind it.
#[derive(Debug, Clone)]
struct Spot(Target);

// === impl Bundle ===

impl Bundle {
    /// Parses the YAML list of the `secrets` annotation.
    ///
    /// # Errors
    /// [`BundleError`] names the field and what would be accepted.
    pub fn from_yaml(text: &str) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        for item in Self::entries(text)? {
            let item = item?;
            let place = item.place.clone();
            bundle.push(item).map_err(|problem| BundleError::new(place, problem))?;
        }
        Ok(bundle)
    }

    /// Each entry of the YAML list of the `secrets` annotation, good or not.
    ///
    /// # Errors
    /// [`BundleError`], if it is not a list.
    pub fn entries(text: &str) -> Result<impl Iterator<Item = Result<Item, BundleError>>, BundleError> {
        let value = parse_annotation(text).map_err(|problem| BundleError::new("", problem))?;
        let Value::Array(entries) = value else {
            return Err(BundleError::new("", "is not a list: expected \"- {file: NAME, from: REFERENCE}\" lines"));
        };
        Ok(entries.into_iter().enumerate().map(|(index, entry)| Item::parse(&format!("[{index}]"), entry)))
    }

    /// Adds an item.
    ///
    /// # Errors
    /// One sentence, if its path is taken or lies below a file.
    pub fn push(&mut self, item: Item) -> Result<(), ParseError> {
        if self.items.len() == MAX_ITEMS {
            return Err(rule(format!(
                "is one more than {MAX_ITEMS}, the most of files and directories: take directories"
            )));
        }
        steps::look(item.target.path().as_str())?;
        let spot = Spot(item.target.clone());
        // Nothing lies below a file: if it would, the file is the last one before it, or it is the first one behind.
        let before = self.taken.range(..=&spot).next_back();
        let behind = self.taken.range(&spot..).next();
        if let Some(problem) = before.into_iter().chain(behind).find_map(|other| item.target.clash(&other.0)) {
            return Err(rule(problem));
        }
        self.taken.insert(spot);
        self.items.push(item);
        Ok(())
    }
}

// === impl Spot ===

impl Ord for Spot {
    fn cmp(&self, other: &Self) -> Ordering {
        // As component by component: what ends a component is less than any byte of one.
        let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
        self.0.path().as_str().bytes().map(rank).cmp(other.0.path().as_str().bytes().map(rank))
    }
}

impl PartialOrd for Spot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Spot {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Spot {}

#[cfg(test)]
mod tests;
