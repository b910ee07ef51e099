//! Enums whose variants are the rows of a table: what is not in the table cannot be said, and all of it can be listed.

/// An enum with `ALL` of its variants in order, and for each its `variant` name and its `row`.
macro_rules! table {
    ($(#[$about:meta])* enum $Enum:ident: $Row:ty { $($variant:ident: $row:expr,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $Enum {
            $($variant,)+
        }

        impl $Enum {
            /// In the order of the table.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            const fn variant(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }

            const fn row(self) -> $Row {
                match self {
                    $(Self::$variant => $row,)+
                }
            }
        }
    };
}

pub(super) use table;

/// A text of a table as it is said on an object, where nothing renders Markdown.
pub(super) fn plain(text: &str) -> String {
    text.replace('`', "")
}
