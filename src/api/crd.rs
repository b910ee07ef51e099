//! The `CustomResourceDefinition`.
