//! A month's rows in parts that are read by themselves.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use ameles_core::Month;
use ameles_schemas::Table;

use super::Layout;
use crate::{DataFile, ReadView, StoreError};

/// A file of a settled month.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) file: DataFile,
    pub(super) path: PathBuf,
    pub(super) layout: Arc<Layout>,
}

/// A part of a month's rows, which can be read by itself.
#[derive(Clone, Debug)]
pub struct Piece(pub(super) Kind);

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A row group of a settled month.
    Group { file: Arc<Settled>, number: usize },
    /// A whole month, merged.
    Merged { month: Month, rows: usize },
    /// What remains of devices that a pending erasure touches.
    Overlay { month: Month },
}

impl Piece {
    /// How many rows, at most and about.
    pub fn rows(&self) -> usize {
        match &self.0 {
            Kind::Group { file, number } => file.layout.row_groups.get(*number).map_or(0, |group| group.rows),
            Kind::Merged { rows, .. } => *rows,
            Kind::Overlay { .. } => 0,
        }
    }

    /// Bounds of the first sort column; none where they are unknown.
    pub fn range(&self) -> Option<(u128, u128)> {
        match &self.0 {
            Kind::Group { file, number } => file.layout.row_groups.get(*number).and_then(|group| group.range),
            Kind::Merged { .. } | Kind::Overlay { .. } => None,
        }
    }

    /// Whether its rows lie in a file as they are, so that reading a part of them costs no more than that part.
    pub fn is_settled(&self) -> bool {
        matches!(self.0, Kind::Group { .. })
    }

    /// Whether the rows of a range of devices can be had without those before.
    pub fn is_seekable(&self) -> bool {
        !matches!(self.0, Kind::Merged { .. })
    }

    pub(super) fn is_overlay(&self) -> bool {
        matches!(self.0, Kind::Overlay { .. })
    }
}

impl ReadView {
    /// A month's rows in pieces, each of which is in the table's order. Those of a settled month follow each other in that order; what a pending erasure leaves of the
    /// devices that it touches is a piece of its own, the last.
    ///
    /// # Errors
    /// When a footer cannot be read.
    pub fn pieces(&self, table: Table, month: Month) -> Result<Vec<Piece>, StoreError> {
        let files = self.snapshot().month_files(table, month);
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let merged = || {
            let rows = files.iter().map(|file| usize::try_from(file.rows).unwrap_or(usize::MAX)).sum();
            Ok(vec![Piece(Kind::Merged { month, rows })])
        };
        if !crate::snapshot::one_generation(files) {
            return merged();
        }
        let mut pieces = Vec::new();
        for file in files {
            let path = self.table_folder(table).join(&file.path);
            let layout = self.layout(table, &file.path, &path)?;
            let groups = layout.row_groups.len();
            let file = Arc::new(Settled { file: file.clone(), path, layout });
            pieces.extend((0..groups).map(|number| Piece(Kind::Group { file: Arc::clone(&file), number })));
        }
        pieces.sort_by_key(Piece::range);
        let follow = |pair: &[Piece]| match (pair[0].range(), pair[1].range()) {
            // Rows of one user may end one file and begin the next.
            (Some(first), Some(second)) => first.1 <= second.0,
            _ => false,
        };
        if table != Table::Links && (pieces.iter().any(|piece| piece.range().is_none()) || !pieces.windows(2).all(follow)) {
            return merged();
        }
        if !self.touched().is_empty() {
            pieces.push(Piece(Kind::Overlay { month }));
        }
        Ok(pieces)
    }

    fn layout(&self, table: Table, name: &str, path: &Path) -> Result<Arc<Layout>, StoreError> {
        let key = (table, name.to_owned());
        if let Some(layout) = self.layouts().lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(Layout::read(path, self.tables(), table)?);
        self.layouts().lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&layout));
        Ok(layout)
    }
}
