//! Rows of some devices, found by runs and one by one.

use super::*;
use crate::splice::find::Found;

fn expanded(file: &ParquetFile, found: &[Found]) -> Vec<usize> {
    let starts: Vec<usize> =
        (0..file.metadata.num_row_groups()).map(|group| (0..group).map(|group| file.group_rows(group)).sum()).collect();
    found
        .iter()
        .flat_map(|one| (0..one.count).map(move |next| (one.group, one.row + next)))
        .map(|(group, row)| starts[group as usize] + row as usize)
        .collect()
}

#[test]
fn rows_of_devices_are_found_whatever_the_pages() {
    let mut codec = Codec::new().unwrap();
    let mut neighbours = 0;
    for seed in 0..rounds() / 2 {
        let (case, dice) = (case(seed), Dice(SeededRandom::new(seed + 500)));
        let ids = case.rows.column(0).as_any().downcast_ref::<BinaryArray>().unwrap();
        let mut wanted: Vec<[u8; 16]> = ids.iter().flatten().map(|id| id.try_into().unwrap()).collect();
        wanted.dedup();
        let kept = [1, 2, 9][dice.below(3)];
        wanted.retain(|_| dice.one_in(kept));
        // Somebody who is in no file.
        wanted.push([0xff; 16]);
        let there: Vec<usize> = (0..ids.len()).filter(|row| wanted.iter().any(|id| id == ids.value(*row))).collect();
        let runs = rows_of(&case.old, &mut codec, &wanted, With::default(), &mut Looked::default()).unwrap();
        assert_eq!(expanded(&case.old, &runs), there, "{seed}");
        let rows = rows_of(&case.old, &mut codec, &wanted, With { user: true, ts: true }, &mut Looked::default()).unwrap();
        assert_eq!(expanded(&case.old, &rows), there, "{seed}");
        assert!(rows.iter().all(|found| found.count == 1) && runs.len() <= rows.len(), "{seed}");
        let users = case.rows.column(2).as_any().downcast_ref::<BinaryArray>().unwrap();
        for (found, row) in rows.iter().zip(&there) {
            assert_eq!(found.device, ids.value(*row), "{seed}");
            assert_eq!(found.user.as_ref().map(<[u8; 16]>::as_slice), users.is_valid(*row).then(|| users.value(*row)), "{seed}");
        }
        neighbours += rows.len() - runs.len();
    }
    assert!(neighbours > rounds() as usize);
}
