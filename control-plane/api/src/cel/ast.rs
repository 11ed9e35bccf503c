//! The syntax tree of an expression.

/// An operator with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Binary {
    /// As cel-go names it in errors.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Binary::Or => "_||_",
            Binary::And => "_&&_",
            Binary::Equal => "_==_",
            Binary::NotEqual => "_!=_",
            Binary::Less => "_<_",
            Binary::LessOrEqual => "_<=_",
            Binary::Greater => "_>_",
            Binary::GreaterOrEqual => "_>=_",
            Binary::In => "@in",
            Binary::Add => "_+_",
            Binary::Subtract => "_-_",
            Binary::Multiply => "_*_",
            Binary::Divide => "_/_",
            Binary::Remainder => "_%_",
        }
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

/// What a macro does with each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    TransformList,
    TransformMap,
    TransformMapEntry,
}

/// An expression, and where its operator, bracket or first letter is, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expr {
    pub kind: Kind,
    pub at: usize,
}

/// What an expression is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Literal(Literal),
    Ident(String),
    /// `a.b`, and `a.?b` when optional.
    Select(Box<Expr>, String, bool),
    /// `has(a.b)`.
    Has(Box<Expr>, String),
    /// `a[b]`, and `a[?b]` when optional.
    Index(Box<Expr>, Box<Expr>, bool),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Conditional(Box<Expr>, Box<Expr>, Box<Expr>),
    /// Elements, `?` in front of those that may be absent.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// `Object.spec{a: 1}`: the first part of the type's name, and the fields as a map.
    Message(String, Box<Expr>),
    /// Target and name; namespaces (`math.greatest`) are part of the name.
    Call(Option<Box<Expr>>, String, Vec<Expr>),
    Loop(Box<Loop>),
    /// `cel.bind(name, value, body)`.
    Bind(String, Box<Expr>, Box<Expr>),
    /// `a.optMap(x, body)`; flat when `optFlatMap`.
    OptionalMap(Box<Expr>, String, Box<Expr>, bool),
}

impl Kind {
    pub(super) fn at(self, at: usize) -> Expr {
        Expr { kind: self, at }
    }
}

/// A macro over a list or map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Loop {
    pub what: Macro,
    pub over: Expr,
    /// Index or key, with two variables.
    pub first: String,
    /// The value, with two variables.
    pub second: Option<String>,
    pub filter: Option<Expr>,
    pub body: Expr,
}
