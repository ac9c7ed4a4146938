//! placeholder until merged
use alloc::string::String;
/// c
#[derive(Clone,Debug,PartialEq,serde::Serialize,serde::Deserialize)]
pub enum Color { /// r
 Rgb, /// g
 Gray }
/// f
#[derive(Clone,Debug,PartialEq,serde::Serialize,serde::Deserialize)]
pub enum Filter { /// r
 Bilinear, /// g
 Bicubic }
/// f
#[derive(Clone,Debug,PartialEq,serde::Serialize,serde::Deserialize)]
pub enum DecodeRule { /// r
 Full }
/// f
#[derive(Clone,Debug,PartialEq,serde::Serialize,serde::Deserialize)]
pub enum Fit { /// r
 Crop{/// s
 short:usize}, /// d
 Squash }
/// p
#[derive(Clone,Debug,PartialEq,serde::Serialize,serde::Deserialize)]
#[allow(missing_docs)]
pub struct Pixels { pub height: usize, pub width: usize, pub color: Color, pub fit: Fit, pub filter: Filter, pub mean:[f32;3], pub std:[f32;3], pub decode: DecodeRule }
#[allow(missing_docs)]
impl Pixels { pub fn validate(&self)->Result<(),String>{Ok(())} pub fn channels(&self)->usize{3} }
