//! The texts of a release.

use std::fmt::Write;

use crate::demo::Result;

/// What is where, once it is published.
#[derive(Debug)]
pub struct Published {
    /// The image for all architectures: repository and digest.
    pub image: String,
    /// The chart: repository and digest.
    pub chart: String,
}

/// The section of the changelog with this heading.
pub fn section<'a>(changelog: &'a str, heading: &str) -> Result<&'a str> {
    let missing = || format!("CHANGELOG.md has no section [{heading}].");
    let start = changelog.find(&format!("\n## [{heading}]")).ok_or_else(missing)? + 1;
    let section = &changelog[start..];
    let section = &section[section.find('\n').ok_or_else(missing)?..];
    Ok(section[..section.find("\n## [").unwrap_or(section.len())].trim())
}

/// The chart's values, with the image that was published as the default.
pub fn with_image(values: &str, image: &str) -> Result<String> {
    let (repository, digest) = image.split_once('@').ok_or_else(|| format!("{image} has no digest."))?;
    let (mut in_image, mut replaced) = (false, 0);
    let mut result = String::new();
    for line in values.lines() {
        if !line.starts_with([' ', '#']) && !line.is_empty() {
            in_image = line == "image:";
        }
        let field = if in_image { line.trim_start().split(':').next().unwrap_or_default() } else { "" };
        match field {
            "repository" => writeln!(result, "  repository: {repository}")?,
            "digest" => writeln!(result, "  digest: {digest}")?,
            _ => {
                writeln!(result, "{line}")?;
                continue;
            }
        }
        replaced += 1;
    }
    if replaced == 2 { Ok(result) } else { Err("the chart's values have no image.repository and image.digest.".into()) }
}

/// What stands beside the release: what has changed, where everything is, and how to verify it.
pub fn notes(changes: &str, published: &Published, version: &str) -> String {
    let Published { image, chart } = published;
    let chart_repository = chart.split('@').next().unwrap_or(chart);
    format!(
        "{changes}\n\n### Where it is\n\n| | |\n|---|---|\n| image | `{image}` |\n| chart | `{chart}` |\n\n\
         ```\nhelm install mistral-workflows-operator oci://{chart_repository} --version {version} \\\n  \
         --namespace mistral-system --create-namespace\n```\n\n\
         The how-to page on installing says how to verify the signatures, the SBOM and the provenance.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str =
        "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [0.1.0] - 2026-12-01\n\n### Added\n\n- first\n";

    #[test]
    fn a_release_tells_its_own_section_of_the_changelog_and_nothing_of_others() {
        assert_eq!(section(CHANGELOG, "0.1.0").unwrap(), "### Added\n\n- first");
        assert_eq!(section(CHANGELOG, "Unreleased").unwrap(), "- new");
        assert_eq!(section(CHANGELOG, "0.2.0").unwrap_err().to_string(), "CHANGELOG.md has no section [0.2.0].");
    }

    #[test]
    fn the_published_chart_names_the_published_image_and_changes_no_other_repository() {
        let values =
            "image:\n  # Where.\n  repository: here\n  tag: \"\"\n  digest: \"\"\nother:\n  repository: there\n";
        let changed = with_image(values, "ghcr.io/us/operator@sha256:1").unwrap();
        assert_eq!(
            changed,
            "image:\n  # Where.\n  repository: ghcr.io/us/operator\n  tag: \"\"\n  digest: sha256:1\nother:\n  repository: there\n"
        );
        assert!(with_image("image:\n  repository: here\n", "ghcr.io/us/operator@sha256:1").is_err());
        assert!(with_image(values, "ghcr.io/us/operator:0.1.0").is_err());
    }
}
