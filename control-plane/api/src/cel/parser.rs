//! Tokens to a tree, with bounded depth: whoever writes rules does not own the server's stack.

use super::{
    CompileError, MAX_DEPTH,
    ast::{Binary, Expr, Kind, Literal, Loop, Macro},
    lexer::{Spanned, Token, tokens},
    types::{Known, known},
    value::unescape,
};

pub(super) fn parse(source: &str) -> Result<Expr, CompileError> {
    let mut parser = Parser {
        source,
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
    };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.error("extraneous input")),
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
}

/// How tightly a binary operator binds.
fn binary(token: &Token) -> Option<(Binary, u8)> {
    Some(match token {
        Token::Symbol(symbol) => match *symbol {
            "||" => (Binary::Or, 1),
            "&&" => (Binary::And, 2),
            "==" => (Binary::Equal, 3),
            "!=" => (Binary::NotEqual, 3),
            "<" => (Binary::Less, 3),
            "<=" => (Binary::LessOrEqual, 3),
            ">" => (Binary::Greater, 3),
            ">=" => (Binary::GreaterOrEqual, 3),
            "+" => (Binary::Add, 4),
            "-" => (Binary::Subtract, 4),
            "*" => (Binary::Multiply, 5),
            "/" => (Binary::Divide, 5),
            "%" => (Binary::Remainder, 5),
            _ => return None,
        },
        Token::Ident(name) if name == "in" => (Binary::In, 3),
        _ => return None,
    })
}

/// The first part of a dotted name.
fn root_of(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select(inner, _, false) => root_of(inner),
        _ => None,
    }
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(token, _)| token)
    }

    /// Where the next token is.
    fn position(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(_, at)| *at)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn error(&self, why: &str) -> CompileError {
        CompileError::syntax(self.source, self.position(), why)
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), CompileError> {
        if self.accept(symbol) {
            return Ok(());
        }
        Err(self.error(&format!("mismatched input, expecting '{symbol}'")))
    }

    /// One level deeper.
    fn nested<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, CompileError>,
    ) -> Result<T, CompileError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CompileError::TooDeep);
        }
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Result<Expr, CompileError> {
        self.nested(|parser| {
            let condition = parser.operators(1)?;
            let at = parser.position();
            if !parser.accept("?") {
                return Ok(condition);
            }
            let yes = parser.operators(1)?;
            parser.expect(":")?;
            let no = parser.expression()?;
            let kind = Kind::Conditional(Box::new(condition), Box::new(yes), Box::new(no));
            Ok(kind.at(at))
        })
    }

    /// A chain of operators that bind at least as tightly as `least`. Chains lean to the left:
    /// each operator counts as a level, as walking them takes one.
    fn operators(&mut self, least: u8) -> Result<Expr, CompileError> {
        let before = self.depth;
        let mut left = self.unary()?;
        while let Some((operator, level)) = binary(self.peek()).filter(|(_, l)| *l >= least) {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(CompileError::TooDeep);
            }
            let at = self.position();
            self.take();
            let right = self.nested(|parser| parser.operators(level + 1))?;
            left = Kind::Binary(operator, Box::new(left), Box::new(right)).at(at);
        }
        self.depth = before;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, CompileError> {
        let at = self.position();
        if self.accept("!") {
            return Ok(Kind::Not(Box::new(self.nested(Self::unary)?)).at(at));
        }
        if self.is("-") {
            self.take();
            let inner = self.nested(Self::unary)?;
            let kind = match inner.kind {
                Kind::Literal(Literal::Int(value)) => {
                    Kind::Literal(Literal::Int(value.wrapping_neg()))
                }
                Kind::Literal(Literal::Double(value)) => Kind::Literal(Literal::Double(-value)),
                _ => Kind::Negate(Box::new(inner)),
            };
            return Ok(kind.at(at));
        }
        self.postfix()
    }

    fn postfix(&mut self) -> Result<Expr, CompileError> {
        let before = self.depth;
        let mut value = self.primary()?;
        loop {
            let at = self.position();
            if self.accept(".") {
                let optional = self.accept("?");
                let Token::Ident(name) = self.take() else {
                    self.at -= 1;
                    return Err(self.error("mismatched input, expecting a field name"));
                };
                let open = self.position();
                value = if !optional && self.accept("(") {
                    self.call(Some(value), name, open)?
                } else {
                    Kind::Select(Box::new(value), name, optional).at(at)
                };
            } else if self.accept("[") {
                let optional = self.accept("?");
                let index = self.expression()?;
                self.expect("]")?;
                value = Kind::Index(Box::new(value), Box::new(index), optional).at(at);
            } else if let Some(root) = root_of(&value).filter(|_| self.is("{")) {
                value = Kind::Message(root, Box::new(self.fields()?)).at(at);
            } else {
                self.depth = before;
                return Ok(value);
            }
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(CompileError::TooDeep);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, CompileError> {
        let at = self.position();
        match self.take() {
            Token::Literal(literal) => Ok(Kind::Literal(literal).at(at)),
            Token::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("[") => Ok(self.list()?.at(at)),
            Token::Symbol("{") => Ok(self.map()?.at(at)),
            // An absolute name.
            Token::Symbol(".") => self.primary(),
            Token::Ident(name) if name != "in" => {
                let open = self.position();
                if self.accept("(") {
                    self.call(None, name, open)
                } else {
                    Ok(Kind::Ident(name).at(at))
                }
            }
            _ => {
                self.at -= 1;
                Err(self.error("mismatched input, expecting an expression"))
            }
        }
    }

    fn list(&mut self) -> Result<Kind, CompileError> {
        let mut items = Vec::new();
        while !self.accept("]") {
            let optional = self.accept("?");
            items.push((self.expression()?, optional));
            if !self.accept(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Kind::List(items))
    }

    fn map(&mut self) -> Result<Kind, CompileError> {
        let mut entries = Vec::new();
        while !self.accept("}") {
            let optional = self.accept("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Kind::Map(entries))
    }

    /// The fields of a message: a map with constant keys.
    fn fields(&mut self) -> Result<Expr, CompileError> {
        let open = self.position();
        self.expect("{")?;
        let mut entries = Vec::new();
        while !self.accept("}") {
            let optional = self.accept("?");
            let at = self.position();
            let Token::Ident(name) = self.take() else {
                self.at -= 1;
                return Err(self.error("mismatched input, expecting a field name"));
            };
            self.expect(":")?;
            let key = Kind::Literal(Literal::String(unescape(&name))).at(at);
            entries.push((key, self.expression()?, optional));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Kind::Map(entries).at(open))
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, CompileError> {
        let mut arguments = Vec::new();
        while !self.accept(")") {
            arguments.push(self.expression()?);
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(arguments)
    }

    /// A call; `at` is its bracket.
    fn call(
        &mut self,
        target: Option<Expr>,
        name: String,
        at: usize,
    ) -> Result<Expr, CompileError> {
        let mut arguments = self.arguments()?;
        let Some(target) = target else {
            if name != "has" {
                return Ok(Kind::Call(None, name, arguments).at(at));
            }
            let argument = arguments.pop().filter(|_| arguments.is_empty());
            return match argument.map(|argument| argument.kind) {
                Some(Kind::Select(operand, field, false)) => Ok(Kind::Has(operand, field).at(at)),
                _ => Err(self.error("invalid argument to has() macro")),
            };
        };
        let Kind::Ident(namespace) = &target.kind else {
            return Ok(self.method(target, name, arguments)?.at(at));
        };
        let full = format!("{namespace}.{name}");
        if full == "cel.bind" {
            return Ok(self.bind(arguments)?.at(at));
        }
        // A variable may have the name of a namespace.
        let kind = match known(&full, false, arguments.len()) {
            Known::No => self.method(target, name, arguments)?,
            _ => Kind::Call(None, full, arguments),
        };
        Ok(kind.at(at))
    }

    fn bind(&self, arguments: Vec<Expr>) -> Result<Kind, CompileError> {
        if let Ok([variable, value, body]) = <[Expr; 3]>::try_from(arguments)
            && let Kind::Ident(name) = variable.kind
        {
            return Ok(Kind::Bind(name, Box::new(value), Box::new(body)));
        }
        Err(self.error("cel.bind() takes a name, its value and an expression"))
    }

    /// A call on a value: a macro, or a function.
    fn method(
        &self,
        target: Expr,
        name: String,
        arguments: Vec<Expr>,
    ) -> Result<Kind, CompileError> {
        if matches!(name.as_str(), "optMap" | "optFlatMap") {
            if let Ok([variable, body]) = <[Expr; 2]>::try_from(arguments)
                && let Kind::Ident(variable) = variable.kind
            {
                let flat = name == "optFlatMap";
                let (target, body) = (Box::new(target), Box::new(body));
                return Ok(Kind::OptionalMap(target, variable, body, flat));
            }
            return Err(self.error(&format!("{name}() takes a variable and an expression")));
        }
        let (what, most) = match name.as_str() {
            "all" => (Macro::All, 3),
            "exists" => (Macro::Exists, 3),
            "exists_one" | "existsOne" => (Macro::ExistsOne, 3),
            "map" => (Macro::Map, 3),
            "filter" => (Macro::Filter, 2),
            "transformList" => (Macro::TransformList, 4),
            "transformMap" => (Macro::TransformMap, 4),
            "transformMapEntry" => (Macro::TransformMapEntry, 4),
            _ => return Ok(Kind::Call(Some(Box::new(target)), name, arguments)),
        };
        let wrong = || self.error(&format!("{name}() takes variables and expressions"));
        if arguments.len() < 2 || arguments.len() > most {
            return Err(wrong());
        }
        let mut arguments = arguments.into_iter();
        let mut variable = || match arguments.next().map(|argument| argument.kind) {
            Some(Kind::Ident(name)) => Ok(name),
            _ => Err(wrong()),
        };
        let first = variable()?;
        let pairs = matches!(
            what,
            Macro::TransformList | Macro::TransformMap | Macro::TransformMapEntry
        );
        let two = pairs || (arguments.len() == 2 && !matches!(what, Macro::Map | Macro::Filter));
        let mut variable = || match arguments.next().map(|argument| argument.kind) {
            Some(Kind::Ident(name)) => Ok(name),
            _ => Err(wrong()),
        };
        let second = if two { Some(variable()?) } else { None };
        let (filter, body) = match (arguments.next(), arguments.next()) {
            (Some(filter), Some(body)) => (Some(filter), body),
            (Some(body), None) => (None, body),
            _ => return Err(wrong()),
        };
        Ok(Kind::Loop(Box::new(Loop {
            what,
            over: target,
            first,
            second,
            filter,
            body,
        })))
    }
}
