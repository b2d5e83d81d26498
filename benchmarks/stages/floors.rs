//! What the machine asks for the same work at least.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use parquet::basic::Compression;
use parquet::file::reader::{FileReader, SerializedFileReader};
use sha2::compress256;
use sha2::digest::generic_array::GenericArray;

/// Compressions of one HMAC of a short message under a prepared key: the message's block and the outer one.
const COMPRESSIONS_PER_HASH: usize = 2;

/// Copies the bytes from one place in memory to another.
pub fn copy(from: &[u8], into: &mut [u8]) {
    black_box(into).copy_from_slice(black_box(from));
}

/// Reads a file's first bytes, which the page cache holds, a chunk after the other into the same memory.
pub fn read(path: &Path, bytes: usize, chunk: &mut [u8]) -> Result<usize> {
    let mut file = File::open(path)?;
    let mut left = bytes;
    while left > 0 {
        let room = left.min(chunk.len());
        match file.read(&mut chunk[..room])? {
            0 => break,
            read => left -= read,
        }
        black_box(&chunk);
    }
    Ok(bytes - left)
}

/// The compressions of so many HMACs and nothing else, by the processor's instructions where it has them.
pub fn compressions(hashes: usize) -> [u32; 8] {
    let block = *GenericArray::from_slice(&[0x5a; 64]);
    let mut lanes = [[1_u32; 8], [2; 8], [3; 8]];
    for _ in 0..hashes * COMPRESSIONS_PER_HASH / lanes.len() {
        for lane in &mut lanes {
            compress256(lane, std::slice::from_ref(black_box(&block)));
        }
    }
    black_box(lanes[0])
}

/// The pages of a Parquet file's compressed columns as they were before compression.
pub fn pages(file: Vec<u8>) -> Result<Vec<Bytes>> {
    let reader = SerializedFileReader::new(Bytes::from(file))?;
    let mut pages = Vec::new();
    for at in 0..reader.num_row_groups() {
        let group = reader.get_row_group(at)?;
        for column in 0..group.num_columns() {
            if group.metadata().column(column).compression() == Compression::UNCOMPRESSED {
                continue;
            }
            let mut of_column = group.get_column_page_reader(column)?;
            while let Some(page) = of_column.get_next_page()? {
                pages.push(page.buffer().clone());
            }
        }
    }
    Ok(pages)
}

/// Compresses each as the writer does: level 1.
pub fn compress(pages: &[Bytes], compressor: &mut zstd::bulk::Compressor<'_>, into: &mut Vec<u8>) -> Result<usize> {
    let mut bytes = 0;
    for page in pages {
        into.clear();
        into.reserve(zstd::zstd_safe::compress_bound(page.len()));
        bytes += compressor.compress_to_buffer(page, into)?;
    }
    Ok(bytes)
}

/// Writes a small file and makes it, and its name, durable.
pub fn durable_file(folder: &Path, number: usize) -> Result<()> {
    let path = folder.join(number.to_string());
    let mut file = File::create_new(&path)?;
    file.write_all(&[0x5a; 4096])?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(())
}
