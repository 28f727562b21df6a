//! Cases of `builtin`: text in, observable result out.


