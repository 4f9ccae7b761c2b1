//! The shortest way to a mismatch (delta debugging, Zeller 1999).

use anyhow::Result;

/// The steps that are left when no further one can be left out, by trying: `fails` says whether
/// these steps still lead to a mismatch. `steps` do.
pub(super) fn shrink<T: Clone>(
    steps: &[T],
    mut fails: impl FnMut(&[T]) -> Result<bool>,
) -> Result<Vec<T>> {
    let mut steps = steps.to_vec();
    let mut chunk = steps.len().div_ceil(2);
    while chunk > 0 {
        let mut start = 0;
        let mut left_out = false;
        while start < steps.len() {
            let end = (start + chunk).min(steps.len());
            let without = [&steps[..start], &steps[end..]].concat();
            if fails(&without)? {
                steps = without;
                left_out = true;
            } else {
                start = end;
            }
        }
        if chunk > 1 {
            chunk = chunk.div_ceil(2);
        } else if !left_out {
            break;
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_left() {
        let steps: Vec<u32> = (0..1000).collect();
        let needed = [3, 500, 501, 999];
        let left = shrink(&steps, |left| {
            Ok(needed.iter().all(|step| left.contains(step)))
        });
        assert_eq!(left.unwrap(), needed);
    }

    #[test]
    fn what_fails_from_the_start_needs_nothing() {
        assert!(shrink(&[1, 2, 3], |_| Ok(true)).unwrap().is_empty());
    }
}
